"""Shell commands that point the ordinary tools at the laptop: `eval "$(mlops laptop env)"`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from laptop import plugin_executables
from laptop.cluster import AUTHORITY
from laptop.lifecycle import ADMINISTRATOR, IDENTITY

if TYPE_CHECKING:
    from laptop.lifecycle import Laptop

_PULUMI = {
    # Pulumi asks for a passphrase when it creates a stack without another secrets provider.
    "PULUMI_CONFIG_PASSPHRASE": "",
    "PULUMI_SKIP_UPDATE_CHECK": "true",
}


def shell_commands(
    running: Laptop,
    environ: Mapping[str, str],
    *,
    administrator: bool = False,
    inside_vpc: bool = False,
    security_groups: Sequence[str] = (),
) -> list[str]:
    """Install the plugins of the Pulumi CLI and return POSIX shell commands that set up the ordinary tools.

    Args:
        running: the laptop.
        environ: variables of the shell. A passphrase in it is kept; the identity of another account is removed.
        administrator: with all rights in the account. Without it, a realistic laptop gives those of an engineer.
        inside_vpc: with the proxy that leads to load balancers, and trust in their certificates.
        security_groups: ids of the security groups of the shell inside of the private network.
    """
    path = environ.get("PATH", os.defpath)
    folder = str(plugin_executables.install(running.home, path))
    exported = {**_PULUMI, **{name: environ[name] for name in _PULUMI if name in environ}}
    exported |= running.environ(administrator=administrator)
    if administrator and running.delays:
        exported[ADMINISTRATOR] = "1"
    if inside_vpc:
        exported |= network_variables(running, security_groups)
    foreign = [name for name in IDENTITY if name in environ and name not in exported]
    commands = [f"unset {' '.join(foreign)}"] if foreign else []
    commands += [f"export {name}={shlex.quote(value)}" for name, value in exported.items()]
    if folder not in path.split(os.pathsep):
        commands.append(f'export PATH={shlex.quote(folder)}:"$PATH"')
    return commands


def network_variables(running: Laptop, security_groups: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables of a program inside of the private network.

    Args:
        running: the laptop.
        security_groups: ids of the security groups of the program.
    """
    from laptop.cluster.private_network import proxy_for_groups

    proxy = proxy_for_groups(running.proxy, security_groups)
    return {
        "http_proxy": proxy,
        "https_proxy": proxy,
        "no_proxy": "127.0.0.1,localhost",
        "SSL_CERT_FILE": str(running.home / "cluster" / AUTHORITY),
    }
