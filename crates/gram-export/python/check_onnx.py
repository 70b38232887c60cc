"""Checks ONNX models with the reference checker and onnxruntime.

    python check_onnx.py MODEL CASES [MODEL CASES ...]

CASES holds `input` [n, c, h, w] and the expected `logits`, as .safetensors (f32) or .json (nested lists). For each model: the checker's
full check with strict shape inference; then onnxruntime on all n images at once and on the first alone. Refused are outputs that differ
by more than 1e-4 of the largest expected output, and images that get another class, unless the expected outputs of both classes are
within 1e-5 of the largest output of each other. Ends with status 1 if a model is refused.

Needs: pip install onnx onnxruntime numpy
"""

import json
import struct
import sys

import numpy
import onnx
import onnxruntime

TOLERANCE = 1e-4
TIE = 1e-5


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise SystemExit(f"{path}: tensor {name} is {entry['dtype']}, not F32")
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = numpy.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    return tensors


def read_cases(path):
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            cases = {name: numpy.asarray(value, "<f4") for name, value in json.load(file).items() if name in ("input", "logits")}
    else:
        cases = read_safetensors(path)
    images = cases["input"]
    return images, cases["logits"].reshape(len(images), -1)


def check(model_path, cases_path):
    """Complaints about a model, and the largest relative difference."""
    model = onnx.load(model_path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs() + session.get_outputs()]
    if names != ["input", "logits"]:
        return [f"its input and output are {names}"], float("nan")
    images, expected = read_cases(cases_path)
    complaints, worst = [], 0.0
    for batch in sorted({len(images), 1}):
        complaint, difference = compare(session, images[:batch], expected[:batch], numpy.abs(expected).max())
        complaints += [f"batch of {batch}: {text}" for text in complaint]
        worst = max(worst, difference)
    return complaints, worst


def compare(session, images, expected, largest):
    (got,) = session.run(["logits"], {"input": images})
    got = got.reshape(len(images), -1)
    if got.shape != expected.shape:
        return [f"outputs {got.shape}, expected {expected.shape}"], float("nan")
    difference = float(numpy.abs(got - expected).max())
    relative = difference / largest if difference else 0.0
    complaints = []
    if not relative <= TOLERANCE:
        complaints.append(f"outputs differ by {relative:.2e} of the largest (limit {TOLERANCE:.0e})")
    picked = expected[numpy.arange(len(expected)), got.argmax(axis=1)]
    n_other = int((picked < expected.max(axis=1) - TIE * largest).sum())
    if n_other:
        complaints.append(f"{n_other} of {len(expected)} images get another class")
    return complaints, relative


def main(arguments):
    if not arguments or len(arguments) % 2:
        raise SystemExit(__doc__)
    n_refused, worst = 0, 0.0
    for model_path, cases_path in zip(arguments[::2], arguments[1::2]):
        try:
            complaints, difference = check(model_path, cases_path)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            complaints, difference = [str(error)], float("nan")
        worst = max(worst, difference)
        for complaint in complaints:
            print(f"{model_path}: {complaint}")
        n_refused += bool(complaints)
    n_models = len(arguments) // 2
    print(f"{n_models - n_refused} of {n_models} models pass; largest relative difference {worst:.2e}")
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    return 1 if n_refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
