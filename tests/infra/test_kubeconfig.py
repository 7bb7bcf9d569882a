"""Contexts of a kubeconfig by the cluster's certificate authority."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.kubeconfig import find_context, read_kubeconfigs
from pipelines.declarations.errors import MlopsError
from tests.infra.recording import write_kubeconfig

PEM = b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"


def test_the_context_is_the_one_whose_cluster_has_the_authority(tmp_path: Path) -> None:
    documents = read_kubeconfigs(str(write_kubeconfig(tmp_path / "one", PEM)))
    assert find_context(documents, PEM) == "right"
    assert find_context(documents, b"other") == "wrong"
    assert find_context(documents, b"of no cluster") is None
    assert find_context([], PEM) is None


def test_several_files_are_read_as_kubectl_does(tmp_path: Path) -> None:
    first, second = write_kubeconfig(tmp_path / "one", b"else"), write_kubeconfig(tmp_path / "two", PEM)
    both = os.pathsep.join((str(first), str(tmp_path / "absent"), str(second)))
    assert find_context(read_kubeconfigs(both), PEM) is None, "the first definition of a name counts"


def test_a_certificate_in_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(PEM)
    file = tmp_path / "config"
    file.write_text(
        "clusters: [{name: a, cluster: {server: 'https://a', certificate-authority: ca.crt}}]\n"
        "contexts: [{name: here, context: {cluster: a, user: u}}]\n"
    )
    assert find_context(read_kubeconfigs(str(file)), PEM) == "here"


@pytest.mark.parametrize("text", ["[1]", "a: [", "text"])
def test_a_file_that_is_not_a_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(MlopsError, match=str(file)):
        read_kubeconfigs(str(file))
