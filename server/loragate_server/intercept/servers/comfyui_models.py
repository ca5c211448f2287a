"""Files of weights in ComfyUI's graphs that are no LoRAs: checkpoints, VAEs, detectors and others.

No list of nodes is complete, so a file of weights in a node that nobody knows counts as a LoRA.
That it is another model is known by the name of the input, by the class of the node, or by words
of both where the graph leaves the node nothing to put a LoRA into: it takes no model, and nothing
that deals with LoRAs takes from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.servers.comfyui_graph import CONSTANTS, Graph, Node, is_link
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
    "NunchakuTextEncoderLoader": "model_path|text_encoder[12]",
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
    "SUPIR_model_loader_v2_clip": "supir_model|clip_[lg]",
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

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_TAKES_MODEL = re.compile(
    r"(.*_)?(model|clip|pipe|unet|patcher|transformer)(_?\d+|_(in|opt|base|high|low))*",
    re.IGNORECASE,
)
_BASE_INPUTS = re.compile(r"(.*_)?(ckpt|unet)_name|model_path")
_OF_LORAS = re.compile(r"(^|[/\\])[^/\\]*(lora|lyco|locon)[^/\\]*[/\\]", re.IGNORECASE)


def holds_other_model(node: Node, names: Iterable[str], text: str, graph: Graph) -> bool:
    """Whether a file of weights that a node names is another model than a LoRA.

    Args:
        node: that names it.
        names: of the members that lead to it, from the input on.
        text: that names it.
        graph: in which the node stands.
    """
    first = next(iter(names))
    if is_lora_class(node.class_type) or any(map(speaks_of_lora, names)):
        return False
    if "://" in text or text.casefold().startswith("urn:") or _OF_LORAS.search(text):
        return False
    if known := _KNOWN.get(node.class_type):
        return re.fullmatch(known, first) is not None
    if node.class_type in CONSTANTS:
        return _goes_to_other_models(node, text, graph)
    named = _speaks_of_others(f"{node.class_type} {first}")
    return named and not _may_apply(node, graph)


def _speaks_of_others(name: str) -> bool:
    words = {one.casefold() for one in _WORD.findall(name)}
    return bool(words & _SHORT_KINDS or _KINDS.search(re.sub(r"[\W_]", "", name).casefold()))


def _may_apply(node: Node, graph: Graph) -> bool:
    """Whether a LoRA could be applied by a node, or by one that takes it from there."""
    if _models_of(node, graph):
        return True
    for taker, name in graph.takers.get(node.key, ()):
        if speaks_of_lora(name) or is_lora_class(taker.class_type):
            return True
        as_other = _speaks_of_others(name) or _TAKES_MODEL.fullmatch(name)
        if not as_other and _models_of(taker, graph) - {name}:
            return True
    return False


def _models_of(node: Node, graph: Graph) -> set[str]:
    """The inputs by which a node takes a model or a text encoder."""
    return {
        name
        for name, value in node.inputs.items()
        if is_link(value) and (_TAKES_MODEL.fullmatch(name) or _is_base(value, graph))
    }


def _is_base(link: list[object], graph: Graph) -> bool:
    """Whether a link brings the model or the text encoder of a checkpoint."""
    source = graph.nodes.get(str(link[0]))
    if source is None or link[1] not in (0, 1):
        return False
    return any(map(_BASE_INPUTS.fullmatch, source.inputs))


def _goes_to_other_models(node: Node, text: str, graph: Graph) -> bool:
    """Whether all that take a constant take it for another model."""
    takers = graph.takers.get(node.key, ())
    return bool(takers) and all(
        taker.key != node.key
        and (name in MODEL_INPUTS or holds_other_model(taker, (name,), text, graph))
        for taker, name in takers
    )
