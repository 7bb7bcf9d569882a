"""Preload botocore's data in the fork server of `tests.processes`, so test processes do not read it again."""

from __future__ import annotations

import botocore.session
from botocore.loaders import create_loader

_loader = create_loader()
for _service in ("s3", "kms"):
    for _kind in ("service-2", "endpoint-rule-set-1"):
        _loader.load_service_model(_service, _kind)
for _name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
    _loader.load_data(_name)

# Saves a tenth of a second in each process.
botocore.session.create_loader = lambda *_: _loader
