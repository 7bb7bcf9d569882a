"""Imported once by the process that the tests' processes are forked from: what each would else read for itself."""

from __future__ import annotations

import botocore.session
from botocore.loaders import create_loader

_loader = create_loader()
for _service in ("s3", "kms"):
    for _kind in ("service-2", "endpoint-rule-set-1"):
        _loader.load_service_model(_service, _kind)
for _name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
    _loader.load_data(_name)

# The descriptions of the services: a tenth of a second a process.
botocore.session.create_loader = lambda *_: _loader
