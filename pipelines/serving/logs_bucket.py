"""Where the inference log is written: the environment's logs bucket."""

from __future__ import annotations

from pipelines.serving.inference_log import Write

CONNECT_SECONDS = 3
READ_SECONDS = 10


def logs_bucket(bucket: str) -> Write:
    """Writes objects into `bucket`. One attempt each: the inference log itself tries again, and counts it."""
    client = None

    def write(key: str, content: bytes) -> None:
        nonlocal client
        if client is None:
            # Made by the thread that writes, at its first write.
            import boto3
            from botocore.config import Config

            config = Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": 1},
            )
            client = boto3.client("s3", config=config)
        client.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/x-ndjson")

    return write
