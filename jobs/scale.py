"""Changes the number of rollout workers of a running run: python jobs/scale.py RUN --rollout-workers N"""

import sys

from tats_ray.cli.scale import scale_main

if __name__ == "__main__":
    sys.exit(scale_main())
