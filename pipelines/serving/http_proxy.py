"""The HTTP proxy that the standard variables name (`http_proxy`, `https_proxy`, `no_proxy`)."""

from __future__ import annotations

import urllib.request
from urllib.parse import SplitResult, urlsplit


def proxy_of(target: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for a URL; None to connect directly."""
    proxy = urllib.request.getproxies().get(target.scheme)
    if not proxy or urllib.request.proxy_bypass(target.netloc):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")
