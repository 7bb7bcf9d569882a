"""Look up the names of the laptop's load balancers, which no DNS server knows; see `laptop.cluster.router`.

A name leads to an address where nothing listens: as with an internal load balancer, a runner can look its name up but
cannot reach it.
"""

import http.client
import socket
from typing import Any

_DOMAIN = ".elb.amazonaws.com"
_NOBODY = "127.255.255.254"


def install(proxy: str) -> None:
    """Answer look-ups of load balancers in this process.

    Args:
        proxy: address of the cluster's proxy, `http://127.0.0.1:<port>`.
    """
    authority = proxy.removeprefix("http://")
    ordinary = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not isinstance(name, str) or not name.lower().endswith(_DOMAIN):
            return ordinary(host, port, *args, **more)
        connection = http.client.HTTPConnection(authority, timeout=5)
        try:
            connection.request("GET", f"/laptop/names/{name}")
            found = connection.getresponse().status == http.client.OK
        except OSError:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from None
        finally:
            connection.close()
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ordinary(_NOBODY, port, *args, **more)

    socket.getaddrinfo = getaddrinfo
