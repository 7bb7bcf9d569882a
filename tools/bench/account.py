"""Run the AWS account of the tests as a process; print its environment variables as JSON."""

from __future__ import annotations

import json
import threading

from tests.aws import emulated_account

if __name__ == "__main__":
    with emulated_account() as account:
        print(json.dumps(account.environ()), flush=True)
        threading.Event().wait()
