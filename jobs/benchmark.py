"""Times training steps or decoding: python jobs/benchmark.py step --config configs/demo.yaml"""

import sys

from tats_ray.cli.benchmark import benchmark_main

if __name__ == "__main__":
    sys.exit(benchmark_main())
