"""Every image gets the size of its file, so that the text does not jump while it loads, and must have alt text."""

from pathlib import Path

import imagesize
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def check_images(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Fill in missing sizes; warn, which fails the build, of an image that has no alt text."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            logger.warning("image %s has no alt text; say what it shows", image["uri"], location=image)
        width, height = imagesize.get(Path(app.srcdir) / image["uri"])
        if width > 0 and "width" not in image and "height" not in image:
            image["width"], image["height"] = str(width), str(height)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check once all images are known."""
    app.connect("doctree-resolved", check_images)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
