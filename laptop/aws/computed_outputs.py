"""Outputs that AWS computes, read from Pulumi's SDK."""

from __future__ import annotations

import functools
import importlib
import re
import threading
from typing import Any

# Registrations arrive in several threads. The SDK loads a module at the first access to one of its attributes, and a
# second thread that accesses one at the same time gets an AttributeError.
_importing = threading.Lock()

_MAY_BE_NONE = re.compile(r"Output\[(typing\.)?Optional\[")


@functools.cache
def computed_outputs(type_: str) -> frozenset[str]:
    """Return the output properties of an AWS type that have a value even if the program gives none.

    The SDK declares them as outputs that are never None. Names are in Pulumi's wire format (`keyId`).

    Args:
        type_: type token (`aws:kms/key:Key`).

    Raises:
        ValueError: the SDK has no such type.
    """
    package, path, name = type_.split(":")
    with _importing:
        module = importlib.import_module(f"pulumi_{package}.{path.partition('/')[0]}")
        class_ = getattr(module, name, None)
    if class_ is None:
        raise ValueError(f"unknown type: expected a resource of pulumi_{package}, found {type_}")
    getters: list[Any] = [value.fget for value in vars(class_).values() if isinstance(value, property)]
    # The laptop imports the SDK with postponed annotations, which are strings.
    return frozenset(
        getter._pulumi_name for getter in getters if not _MAY_BE_NONE.search(str(getter.__annotations__["return"]))
    )
