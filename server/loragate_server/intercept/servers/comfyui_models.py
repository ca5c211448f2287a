"""Files of weights in ComfyUI's graphs that are no LoRAs: checkpoints, VAEs, detectors and others.

No list of nodes is complete, so a file of weights in a node that nobody knows counts as a LoRA.
That it is another model is known by the name of the input, by the class of the node, or by words
of both where the graph leaves the node nothing to put a LoRA into: it takes no model, and nothing
that deals with LoRAs takes from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.servers.comfyui_graph import CONSTANTS, Node, is_link
from loragate_server.intercept.servers.comfyui_tags import is_lora_class

MODEL_INPUTS = (
    "ckpt_name",
    "base_ckpt_name",
    "refiner_ckpt_name",
    "hires_ckpt_name",
    "vae_name",
    "unet_name",
    "clip_name",
    "clip_name1",
    "clip_name2",
    "clip_name3",
    "clip_name4",
    "control_net_name",
    "style_model_name",
    "gligen_name",
    "upscale_model",
    "ipadapter_file",
    "text_encoder",
    "audio_encoder_name",
    "bg_removal_name",
    "instantid_file",
    "pulid_file",
    "supir_model",
    "bbox_detector",
    "pose_estimator",
    "face_restore_model",
    "swap_model",
)
"""Inputs that hold other models' files, whatever the node."""
_MODEL_INPUTS = frozenset(MODEL_INPUTS)

_KNOWN: Mapping[str, str] = {
    "AudioEncoderLoader": "audio_encoder_name",
    "ConditioningLoader": "conditioning_name",
    "ModelPatchLoader": "name",
    "QwenImageDiffsynthLoader": "name",
    "LoadDA3Model": "model_name",
    "LoadMoGeModel": "model_name",
    "OpticalFlowLoader": "model_name",
    "UpscaleModelLoader": "model_name",
    "LatentUpscaleModelLoader": "model_name",
    "FrameInterpolationModelLoader": "model_name",
    "PhotoMakerLoader": "photomaker_model_name",
    "DiffusersLoader": "model_path",
    "LTXVGemmaCLIPModelLoader": "gemma_path|ltxv_path",
    # Impact Pack and its relatives
    "UltralyticsDetectorProvider": "model_name",
    "ONNXDetectorProvider": "model_name",
    "SAMLoader": "model_name",
    # WanVideo, HunyuanVideo, CogVideoX, Mochi and others that bring their own loaders of models
    "WanVideoModelLoader": "model",
    "WanVideoVAELoader": "model_name",
    "WanVideoTinyVAELoader": "model_name",
    "LoadWanVideoT5TextEncoder": "model_name",
    "LoadWanVideoClipTextEncoder": "model_name",
    "WanVideoTextEncodeCached": "model_name",
    "WanVideoVACEModelSelect": "vace_model",
    "WanVideoExtraModelSelect": "extra_model",
    "WanVideoControlnetLoader": "model",
    "WanVideoUni3C_ControlnetLoader": "model",
    "FantasyTalkingModelLoader": "model",
    "FantasyPortraitModelLoader": "model",
    "MultiTalkModelLoader": "model",
    "HyVideoModelLoader": "model",
    "HyVideoVAELoader": "model_name",
    "CogVideoXModelLoader": "model",
    "CogVideoXVAELoader": "model_name",
    "MochiModelLoader": "model_name",
    "MochiVAELoader": "model_name",
    "SeedVR2LoadDiTModel": "model",
    "SeedVR2LoadVAEModel": "model",
    "SeedVR2": "model",
    "NunchakuFluxDiTLoader": "model_path",
    "NunchakuQwenImageDiTLoader": "model_name",
    "NunchakuTextEncoderLoader": "model_path|text_encoder1|text_encoder2",
    # AnimateDiff
    "ADE_LoadAnimateDiffModel": "model_name",
    "ADE_AnimateDiffLoaderGen1": "model_name",
    "ADE_AnimateDiffLoaderWithContext": "model_name",
    "ADE_AnimateDiffLoaderV1Advanced": "model_name",
    "AnimateDiffLoaderV1": "model_name",
    "AnimateDiffModuleLoader": "model_name",
    # Faces and persons
    "ReActorFaceSwap": "swap_model|facedetection|face_restore_model",
    "ReActorFaceSwapOpt": "swap_model|facedetection|face_restore_model",
    "ReActorRestoreFace": "model|facedetection",
    "ReActorMaskHelper": "bbox_model_name|sam_model_name",
    "FaceRestoreModelLoader": "model_name",
    "InstantIDModelLoader": "instantid_file",
    "PulidModelLoader": "pulid_file",
    "PulidFluxModelLoader": "pulid_file",
    "NunchakuPulidLoader": "pulid_file",
    "NunchakuPuLIDLoaderV2": "pulid_file",
    # Inpainting, restoring, cutting out
    "BrushNetLoader": "brushnet",
    "PowerPaintCLIPLoader": "base|powerpaint",
    "SUPIR_Upscale": "supir_model|sdxl_model",
    "SUPIR_model_loader": "supir_model|sdxl_model",
    "SUPIR_model_loader_v2": "supir_model",
    "SUPIR_model_loader_v2_clip": "supir_model|clip_l|clip_g",
    "INPAINT_LoadInpaintModel": "model_name",
    "DownloadAndLoadSAM2Model": "model",
    "DownloadAndLoadSAM2RealtimeModel": "model",
    "SAM2ModelLoader": "model_name",
    "SAMModelLoader": "model_name",
    "SAM2VideoModelLoader": "model_name",
    "MMAudioModelLoader": "mmaudio_model",
    "MMAudioFeatureUtilsLoader": "vae_model|synchformer_model|clip_model",
    "LoadFluxControlNet": "model_name|controlnet_path",
    "LoadFluxIPAdapter": "ipadatper|ipadapter|clip_vision",
    "ACN_ControlNetLoaderAdvanced": "control_net_name|cnet",
    "ACN_SparseCtrlLoaderAdvanced": "sparsectrl_name",
}
"""By classes of well-known packs, whose loaders of these inputs load no LoRA."""

_KNOWN_BASES = re.compile(
    r"DiffusersLoader|(WanVideo|HyVideo|CogVideoX|Mochi)ModelLoader|Nunchaku\w+DiTLoader"
    r"|SeedVR2\w*|SUPIR_\w+"
)
"""Those of them whose models LoRAs change."""

_KINDS = re.compile(
    r"checkpoint|diffusionmodel|textencod|cliploader|clipmodel|clipvision|controlnet|stylemodel"
    r"|gligen|ipadapter|instantid|pulid|photomaker|insightface|upscal|interpolat|opticalflow"
    r"|segmentanything|segmentation|birefnet|backgroundremov|removebackground|matting|detector"
    r"|detection|ultralytics|groundingdino|florence|dwpose|openpose|preprocessor|depthanything"
    r"|midas|normalmap|motionmod|animatediff|brushnet|powerpaint|supir|seedvr|faceswap|facerestor"
    r"|reactor|audioencod|whisper|wav2vec|vocoder|mediapipe|tokenizer|captioner|tagger"
)
"""Words of models that are no LoRAs, in letters without anything between them."""

_SHORT_KINDS = frozenset(
    {"vae", "unet", "ckpt", "sam", "yolo", "rife", "rmbg", "rembg", "depth", "moge", "tts", "llm"}
)
"""The same, where they stand for themselves."""

_NO_BASES = _SHORT_KINDS - {"unet", "ckpt"}

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_TAKES_MODEL = re.compile(
    r"(.*_)?(model|clip|pipe|unet|patcher|transformer)(_?\d|_(in|opt|base|high|low))*",
    re.IGNORECASE,
)
_BASE_INPUTS = re.compile(r"(.*_)?(ckpt|unet)_name|model_path")
_OF_LORAS = re.compile(r"lora|lyco|locon", re.IGNORECASE)
_MOST_HOPS = 16

Takers = Mapping[str, Sequence[tuple[Node, str]]]


def is_no_base(class_type: str, key: str) -> bool:
    """Whether this input of a node says which model is loaded, and no LoRA changes that one."""
    if known := _KNOWN.get(class_type):
        return key in known.split("|") and not _KNOWN_BASES.fullmatch(class_type)
    return not _NO_BASES.isdisjoint(word.casefold() for word in _WORD.findall(class_type))


class OtherModels:
    """Which files of weights in one graph are other models than LoRAs.

    What is asked for every file of a node is found out once, so that it costs no more than the
    graph is long.
    """

    def __init__(self, nodes: Mapping[str, Node], takers: Takers) -> None:
        self._nodes = nodes
        self._takers = takers
        self._models: dict[str, frozenset[str]] = {}
        self._bases: dict[str, bool] = {}
        self._apply: dict[str, bool] = {}
        self._hand_on: dict[tuple[str, int], bool] = {}

    def hold(self, node: Node, names: Sequence[str], text: str) -> bool:
        """Whether a file of weights that a node names is another model than a LoRA.

        Args:
            node: that names it.
            names: of the members that lead to it, from the input on.
            text: that names it.
        """
        if "://" in text or text[:4].casefold() == "urn:" or _in_folder_of_loras(text):
            return False
        return self._takes(node, names, 0)

    def _takes(self, node: Node, names: Sequence[str], hops: int) -> bool:
        """Whether a node takes for another model what comes in by an input."""
        if is_lora_class(node.class_type) or any(map(speaks_of_lora, names)):
            return False
        if known := _KNOWN.get(node.class_type):
            return names[0] in known.split("|")
        if node.class_type in CONSTANTS:
            return self._goes_to_others(node, hops)
        named = _speaks_of_others(f"{node.class_type} {names[0]}")
        return named and not self._may_apply(node)

    def _goes_to_others(self, node: Node, hops: int) -> bool:
        """Whether all that take a constant take it for another model."""
        if hops > _MOST_HOPS:  # as in a circle
            return False
        key = node.key, hops
        if key not in self._hand_on:
            takers = self._takers.get(node.key, ())
            self._hand_on[key] = bool(takers) and all(
                name in _MODEL_INPUTS or self._takes(taker, (name,), hops + 1)
                for taker, name in takers
            )
        return self._hand_on[key]

    def _may_apply(self, node: Node) -> bool:
        """Whether a LoRA could be applied by a node, or by one that takes it from there."""
        if node.key not in self._apply:
            self._apply[node.key] = bool(self._models_of(node)) or any(
                self._may_apply_by(taker, name) for taker, name in self._takers.get(node.key, ())
            )
        return self._apply[node.key]

    def _may_apply_by(self, taker: Node, name: str) -> bool:
        if speaks_of_lora(name) or is_lora_class(taker.class_type):
            return True
        if _speaks_of_others(name) or _TAKES_MODEL.fullmatch(name):
            return False
        models = self._models_of(taker)
        return len(models) > (name in models)

    def _models_of(self, node: Node) -> frozenset[str]:
        """The inputs by which a node takes a model or a text encoder."""
        if node.key not in self._models:
            self._models[node.key] = frozenset(
                name
                for name, value in node.inputs.items()
                if is_link(value) and (_TAKES_MODEL.fullmatch(name) or self._is_base(value))
            )
        return self._models[node.key]

    def _is_base(self, link: list[Any]) -> bool:
        """Whether a link brings the model or the text encoder of a checkpoint."""
        source = self._nodes.get(link[0])
        if source is None or link[1] not in (0, 1):
            return False
        if source.key not in self._bases:
            self._bases[source.key] = any(map(_BASE_INPUTS.fullmatch, source.inputs))
        return self._bases[source.key]


@lru_cache(maxsize=4096)
def _speaks_of_others(name: str) -> bool:
    words = {one.casefold() for one in _WORD.findall(name)}
    return bool(words & _SHORT_KINDS or _KINDS.search(re.sub(r"[\W_]", "", name).casefold()))


def _in_folder_of_loras(text: str) -> bool:
    folders = text.replace("\\", "/").rpartition("/")[0]
    return _OF_LORAS.search(folders) is not None
