"""Where the demo model's inputs, intermediate files and result live."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_FOLDER = REPOSITORY / "build" / "demo_model"
MODEL_FOLDER = REPOSITORY / "app" / "models" / "demo"
