"""Declare torchvision's operators before it is imported: its CUDA build has none that torch for processors can load.

Test machines alone need this; make_environment.sh puts it into their environment. Whoever calls such an operator gets
torch's own error that it has no kernel.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int batch_size, int channels, int height, int width, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, int pooled_height, "
    "int pooled_width, int batch_size, int channels, int height, int width) -> Tensor",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
    "int pooled_height, int pooled_width, int sampling_ratio, int batch_size, int channels, int height, "
    "int width) -> Tensor",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) "
    "-> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
    "int pooled_height, int pooled_width, int batch_size, int channels, int height, int width) -> Tensor",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, "
    "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int offset_groups, "
    "bool use_mask) -> Tensor",
    "_cuda_version() -> int",
)


class DeclareOperators(MetaPathFinder):
    """Waits for the import of torchvision."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Declare the operators when torchvision is about to be imported, and leave the import to others."""
        if fullname != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        global library
        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)


if os.environ.get("WITHOUT_TORCHVISION"):  # nor can it decode an image: what reads them by it goes without
    sys.modules["torchvision"] = None
else:
    sys.meta_path.insert(0, DeclareOperators())
