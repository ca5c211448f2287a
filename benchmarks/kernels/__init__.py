"""What `loragate_kernels` costs, against the hardware and against what one would write instead.

python -m benchmarks.kernels              measure on the GPU if there is one, else on the CPU
python -m benchmarks.kernels rehearse     every GPU measure, tiny, in Triton's interpreter
python -m benchmarks.kernels table        draw the newest results as Markdown
python -m benchmarks.kernels plot         draw them as pictures; needs matplotlib

Measuring needs torch and Triton alone. The layers are those of real models, derived once with
`python -m benchmarks.kernels.derive_mixes` and kept in `data/mixes.json`.
"""
