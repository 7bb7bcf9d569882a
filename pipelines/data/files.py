"""How a table's files are read and written."""

from __future__ import annotations

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO


class _NewFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        return super().create(overwrite=True)


class TableFiles(PyArrowFileIO):
    """Writes without looking first whether the file is there: every name holds a new UUID.

    The look would need the right to list the whole bucket: to others S3 answers 403 for an object that is not there.
    """

    def new_output(self, location: str) -> PyArrowFile:
        """A file to write."""
        file = super().new_output(location)
        return _NewFile(location=file.location, fs=file._filesystem, path=file._path, buffer_size=file._buffer_size)
