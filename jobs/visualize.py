"""Shows how runs see a video: python jobs/visualize.py VIDEO [VIDEO ...] --run runs/NAME ..."""

import sys

from tats_ray.cli.visualize import visualize_main

if __name__ == "__main__":
    sys.exit(visualize_main())
