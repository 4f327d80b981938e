"""Speed and memory, one command each: `python -m benchmarks.NAME`. All results are ratios within one run.

updates   the same updates, the same quality: against the paper's own procedure
sd_size   Stable Diffusion 1.5 and SDXL, with random weights
drawing   against the diffusers pipeline's own call
growth    time and memory against concepts, trained parameters, resolution, batch
attacks   attacks and judging: prompts a minute
optimiser operations of a step of Adam with moments of 8 bits
guard     evaluation counts and allocations against those that are kept in guard.json

What they found, and on which machine, stands in docs/performance.md.
"""
