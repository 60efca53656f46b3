"""edge-deploy: trained DLRMs and CNNs as verified INT8/INT4 TFLite and ExecuTorch artifacts."""

__version__ = "0.1.0"
