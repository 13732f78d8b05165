"""All that is claimed of CUDA, in one call of a few minutes: parity, kernels, steps, training, frames, where time goes.

    python tools/bench/cuda.py SCENE [--parts checks grid networks step train render profile] [--budgets 60 120]
                               [--log2-points 18] [--steps 300] [--device cuda] [--out runs/cuda]

Builds nothing. Each measurement is one JSON line; a part that fails says why in one and the others go on. Where
tinycudann and nerfacc are installed, their rows stand beside ours. With --device cpu all of it runs through the CPU's
form, to see that it would.
"""

if __name__ == "__main__":
    import sys

    # torch asks for a package of this file's name, and shall find that one or none. A bench beside this file, which
    # lets torch find this module, has it take that for none: so there is nothing here but for who calls it.
    folder = sys.path.pop(0)
    import torch  # noqa: F401

    sys.path.append(folder)
    from cuda_parts import main

    main()
