#!/usr/bin/env bash
# ./demo.sh [CLIP] [--serve]
# Runs workflows/edit_face_video.json on CLIP (default: a public test clip) in a real ComfyUI with this pack, and leaves
# output/demo.mp4 and output/demo_sheet.png. --serve keeps the server up afterwards and prints its address.
# COMFYUI_PATH (and COMFYUI_PYTHON) name a ComfyUI of yours; otherwise one is prepared in .cache (or DYNODE_CACHE), once.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$(python3 "$folder/scripts/comfy_env.py")
exec "$python" "$folder/scripts/demo.py" "$@"
