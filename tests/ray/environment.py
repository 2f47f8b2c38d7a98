"""What Ray reads when it is imported, for the cluster of the tests."""

from __future__ import annotations

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # loopback only, gone with the test process
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: on loopback only
    "GLOO_SOCKET_IFNAME": "lo",
    "RAY_num_workers_soft_limit": "64",  # decode workers stay
}
