"""Settings of DuckDB that hold for every query."""

from __future__ import annotations

from typing import Any

NO_DOWNLOADS: dict[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
"""DuckDB downloads missing extensions by default. Its package includes those that we use."""
