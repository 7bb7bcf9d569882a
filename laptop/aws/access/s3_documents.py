"""XML in requests to S3, read strictly, because moto reads it with another parser."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from laptop.aws.access.request import Request, RequestRefusedError

_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_DECLARES = re.compile(r"<!(DOCTYPE|ENTITY)|</?[\w.-]+:", re.IGNORECASE)
"""Entities, and elements with a prefix. No SDK sends them."""

Element = ElementTree.Element


def document_of(request: Request, name: str) -> Element:
    """Return the document in the content of a request.

    Args:
        name: name of its root.

    Raises:
        RequestRefusedError: there is no such document, or it can be read in more than one way.
    """
    if request.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
        raise malformed("The content is sent in chunks.")
    try:
        text = request.body.decode("utf-8")
        if _DECLARES.search(text):
            raise malformed("The XML has a prefix or a declaration.")
        root = ElementTree.fromstring(text)  # noqa: S314  it declares no entities
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise malformed() from error
    if name_of(root) != name:
        raise malformed()
    return root


def name_of(element: Element) -> str:
    """Return the name of an element in the namespace of S3, or in none."""
    return element.tag.removeprefix(_NAMESPACE)


def texts_in(element: Element) -> dict[str, str]:
    """Return child → text of an element whose children have nothing but text.

    Raises:
        RequestRefusedError: a child is there twice, or has attributes or children.
    """
    found: dict[str, str] = {}
    for child in element:
        if name_of(child) in found or child.attrib or len(child):
            raise malformed()
        found[name_of(child)] = child.text or ""
    return found


def malformed(why: str = "The XML you provided was not well-formed.") -> RequestRefusedError:
    """Return the refusal of a document."""
    return RequestRefusedError(400, "MalformedXML", why)
