"""Times training steps: python jobs/benchmark.py --config configs/tats_vit_b.yaml"""

import sys

from tats_ray.cli.benchmark import benchmark_main

if __name__ == "__main__":
    sys.exit(benchmark_main())
