"""Models and token arithmetic: PyTorch and timm only, so that they run on any machine."""

import warnings

# Decoded blocks and published weights are read-only shared memory; all readers copy from them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
