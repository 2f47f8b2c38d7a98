"""Models and token arithmetic. They need PyTorch alone, so that they run anywhere; timm is for
fine-tuning and for features as targets."""

import warnings

# Decoded blocks and published weights are read-only shared memory; all readers copy from them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
