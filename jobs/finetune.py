"""Fine-tunes a pre-trained encoder: python jobs/finetune.py --config configs/finetune/demo.yaml"""

import sys

from tats_ray.cli.train import finetune_main

if __name__ == "__main__":
    sys.exit(finetune_main())
