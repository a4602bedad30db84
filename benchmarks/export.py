"""From a field to the files: seconds of CPU that each stage of the default recipe's export takes."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measure import machine

from maquette.core.config import load_config
from maquette.core.registry import find
from maquette.io.mesh import read_mesh, write_glb
from maquette.io.remesh import decimate
from maquette.io.uv import unwrap
from maquette.systems.showcase import Showcase, ShowcaseConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="first-light")
    parser.add_argument("--noise", type=float, default=0.3, help="of the hash grid, on top of the blob (0.3)")
    parser.add_argument("--unwrap", type=int, nargs="*", default=[], help="also unwrap with so many faces")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    args = parser.parse_intermixed_args()
    system = load_config(args.recipe, ["system.prompt_processor.prompt=x", *args.overrides]).system
    geometry = find(system.geometry_type, "geometry")(system.geometry)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        geometry.encoding.encoding.table.uniform_(-args.noise, args.noise, generator=noise)
    material = find(system.material_type, "material")(system.material)
    exporter = find(system.exporter_type, "exporter")(system.exporter, geometry, material)
    geometry.isosurface()
    print(f"{machine()}; {args.recipe}, {system.geometry.get('isosurface_resolution', 128)} nodes a side")
    surface = timed("isosurface", geometry.isosurface)
    timed("exporter (with an isosurface)", exporter)
    mesh = exporter()[0].params["v_pos"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.glb"
        timed(f"GLB of {mesh.n_faces} faces, read back", lambda: read_mesh(write_glb(mesh, path)))
        showcase = Showcase(ShowcaseConfig())
        timed("preview", lambda: showcase.preview(mesh, Path(folder) / "preview.png"))
        timed("turntable", lambda: showcase.turntable(mesh, Path(folder) / "turntable.mp4"))
    for faces in args.unwrap:
        simple = decimate(surface, faces)
        timed(f"unwrapping {simple.n_faces} faces", lambda mesh=simple: unwrap(mesh))


def timed(title: str, task: Callable[[], Any]) -> Any:
    """Print what one call takes (of this process; the video's encoder is another one)."""
    begin = time.process_time()
    result = task()
    print(f"  {title:36s} {time.process_time() - begin:7.2f} s")
    return result


if __name__ == "__main__":
    main()
