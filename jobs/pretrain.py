"""Pre-trains a masked video autoencoder: python jobs/pretrain.py --config configs/demo.yaml"""

import sys

from tats_ray.cli.train import pretrain_main

if __name__ == "__main__":
    sys.exit(pretrain_main())
