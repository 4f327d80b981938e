"""Speed and memory, one command each: `python -m benchmarks.NAME`. All results are ratios within one run.

updates   compares time and quality after the same updates with the paper's own procedure
sd_size   measures Stable Diffusion 1.5 and SDXL with random weights
drawing   compares drawing with the call of the diffusers pipeline
growth    measures time and memory by concepts, trained parameters, resolution and batch
attacks   measures prompts a minute of attacks and of judging
optimiser counts the operations of a step of Adam with moments of 8 bits
guard     compares evaluation counts and allocations with those in guard.json

docs/performance.md says what they measured, and on which machine.
"""
