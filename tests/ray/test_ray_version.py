"""A Ray that this code was not written for is refused in one line."""

from __future__ import annotations

import pytest
import ray

from tats_ray.actors.ray_compat import WRITTEN_FOR, check_version
from tats_ray.errors import ResourceError


@pytest.mark.parametrize("version", ["2.61.0", "2.6.0", "3.0.0"])
def test_another_minor_version_is_named_beside_the_one_needed(version, monkeypatch):
    monkeypatch.setattr(ray, "__version__", version)
    with pytest.raises(ResourceError, match=rf"Ray {version} is installed.*Ray {WRITTEN_FOR}\."):
        check_version()


def test_the_installed_one_is_taken():
    check_version()
