"""Run this Python's command in a fork of the command server, if there is one; see `laptop.github.command_forks`.

Python imports this module before it runs the command. It returns if the server cannot run the command.
"""

import os
import sys


def _main() -> None:
    server = os.environ.get("MLOPS_COMMAND_FORKS")
    arguments = sys.orig_argv[1:]
    if not server or not arguments:
        return
    module = arguments[0] == "-m" and len(arguments) > 1
    if not module and os.path.basename(arguments[0]) != "mlops":  # noqa: PTH119  this file imports little
        return
    if module and not arguments[1].startswith(("pipelines.", "laptop.")):
        return

    import json
    import signal
    import socket

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(server)
        request = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "prefix": os.path.realpath(sys.prefix),
            "folder": os.getcwd(),  # noqa: PTH109
        }
        content = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(connection, [content], [0, 1, 2])
        connection.sendall(content[sent:])
    except OSError:
        connection.close()
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    reply = b""
    while not reply.endswith(b"\n"):
        received = connection.recv(64)
        if not received:  # the server has ended, and the fork with it
            os._exit(137)
        reply += received
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if reply == b"no\n":
        connection.close()
        return
    code = int(reply)
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


_main()
if os.environ.get("MLOPS_LAPTOP_NAMES"):
    import laptop_names  # type: ignore[import-not-found, import-untyped, unused-ignore]  # next to this file

    laptop_names.install(os.environ["MLOPS_LAPTOP_NAMES"])
