"""Writer of the inference log: the environment's logs bucket."""

from __future__ import annotations

from botocore.config import Config

from pipelines.registry import clients
from pipelines.serving.inference_log import Write

CONNECT_SECONDS = 3
READ_SECONDS = 10


def logs_bucket(bucket: str) -> Write:
    """Return a function that puts objects into `bucket`, with one attempt each: the inference log retries."""
    client = None

    def write(key: str, content: bytes) -> None:
        nonlocal client
        if client is None:
            # Reuse the session that read the bundle: its model of S3 takes 15 MB.
            config = Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": 1},
            )
            client = clients.session().client("s3", config=config)
        client.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/x-ndjson")

    return write
