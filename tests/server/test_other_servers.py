"""Every argument of other image services, as a model that knows those gives it here: answered, and never done under another name."""

from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.terms import TOOLS
from tests.conftest import Connect, Emulated
from tests.server.test_setup import CALLS
from tests.support.fakes import FakeModel

OURS = "is ours"
"""The argument has the same name and meaning here."""

RUNWARE: dict[str, tuple[Any, str]] = {
    "positivePrompt": ("a heron", "use prompt"),
    "model": ("runware:101@1", r"use model_tier \(flash, pro, lite\)"),
    "height": (1024, OURS),
    "width": (1024, OURS),
    "numberResults": (4, "use n$"),
    "steps": (30, "no steps: thinking_level .* model_tier"),
    "CFGScale": (7.5, "no such control; say it in words"),
    "negativePrompt": ("rain", "use negative_prompt"),
    "seed": (7, OURS),
    "scheduler": ("Euler", "nothing of the kind to choose; leave it out"),
    "outputType": ("URL", "the answer has the path, a preview and a link"),
    "outputFormat": ("PNG", "use output_format"),
    "checkNSFW": (True, "use safety"),
    "strength": (0.6, "no such control; say it in words"),
    "clipSkip": (2, "nothing of the kind to choose"),
    "promptWeighting": ("compel", "no weights: say in the prompt, in words, what matters most"),
    "includeCost": (True, "every answer has the cost, and dry_run tells it beforehand"),
    "vae": ("civitai:22354@123", "nothing of the kind to choose"),
    "maskMargin": (32, "edit_region has context"),
    "outputQuality": (85, "use quality"),
    "taskUUID": ("1f0c", "use idempotency_key"),
    "uploadEndpoint": ("https://example.org/put", "put nowhere else; output_path says where"),
    "seedImage": ("a.png", "use input_images, with input_roles"),
    "referenceImages": (["a.png"], "use input_images, with input_roles"),
    "maskImage": ("m.png", "edit_region has mask"),
    "acceleratorOptions": ({"teaCache": True}, "model_tier lite or thinking_level minimal is quicker"),
    "advancedFeatures": ({"layerDiffuse": True}, "generate_image has background, and remove_background cuts"),
    "controlNet": ([{"guideImage": "a.png"}], "in input_images, with the role of each .* layout"),
    "lora": ([{"model": "civitai:1@2"}], "example pictures in input_images, with the role of each"),
    "lycoris": ([], "example pictures in input_images"),
    "embeddings": ([], "example pictures in input_images"),
    "ipAdapters": ([{"guideImage": "a.png"}], "reference pictures in input_images, with the role of each"),
    "refiner": ({"model": "civitai:1@2"}, "edit the picture again, or ask for it with model_tier pro"),
    "outpaint": ({"top": 256}, "extend_image continues a picture beyond its edges, by left, top, right and bottom"),
    "instantID": ({"inputImage": "a.png"}, "in input_images, with the role of each .character, subject"),
    "acePlusPlus": ({"type": "portrait"}, "in input_images, with the role of each .*; edit_region repaints a region"),
    "extraArgs": ({"x": 1}, "nothing else is passed on to Gemini"),
}

OPENAI: dict[str, tuple[Any, str]] = {
    "prompt": ("a heron", OURS),
    "action": ("edit", "use mode"),
    "background": ("auto", "background: must be 'opaque' or 'transparent'; opaque does what auto does elsewhere"),
    "complexity": ("high", "use thinking_level"),
    "effort": ("high", "use thinking_level"),
    "frame_count": (9, "no moving pictures here; ask generate_image for n pictures"),
    "frame_duration_ms": (200, "no moving pictures here"),
    "image": ("a.png", "use input_images"),
    "images": (["a.png"], "use input_images"),
    "input_fidelity": ("high", "say in the prompt what must stay; edit_region keeps the rest bit-identical"),
    "input_image_mask": ({"file_id": "x"}, "edit_region has mask"),
    "markup": ("a.png", "edit_region takes the place as box or mask"),
    "mask": ("m.png", "edit_region has mask"),
    "model": ("gpt-image-2", "use model_tier"),
    "moderation": ("low", "use safety"),
    "n": (1, OURS),
    "output_compression": (80, "use quality"),
    "output_format": ("png", OURS),
    "partial_images": (2, "pictures come whole; progress is told"),
    "quality": (
        "high",
        "quality must be a whole number, not text; it is the compression of a jpeg, webp or avif",
    ),
    "reasoning": ({"effort": "high"}, "use thinking_level"),
    "response_format": ("b64_json", "the answer has the path, a preview and a link"),
    "safety_identifier": ("u1", "nothing is sent about who asks"),
    "size": ("1024x1536", "use resolution .*aspect_ratio; width and height make an exact file"),
    "stream": (True, "pictures come whole; progress is told"),
    "style": ("vivid", "say the style in the prompt"),
    "svg": ({"model": "x"}, "PNG, JPEG, WebP or AVIF; there are no vector graphics"),
    "user": ("u1", "nothing is sent about who asks"),
}

TOGETHER: dict[str, tuple[Any, str]] = {
    "prompt": ("a heron", OURS),
    "model": ("black-forest-labs/FLUX.1-schnell-Free", "use model_tier"),
    "disable_safety_checker": (True, "use safety"),
    "guidance_scale": (3.5, "say it in words"),
    "height": (768, OURS),
    "image_loras": ([{"path": "https://x", "scale": 1}], "example pictures in input_images"),
    "image_path": ("/pictures/a.png", "output_path says where to save; a picture to start from goes into input_images"),
    "image_url": ("https://example.org/a.png", "use input_images"),
    "n": (1, OURS),
    "negative_prompt": ("rain", OURS),
    "output_format": ("jpeg", OURS),
    "reference_images": (["a.png"], "use input_images"),
    "response_format": ("url", "the answer has the path"),
    "seed": (7, OURS),
    "steps": (4, "no steps"),
    "width": (1024, OURS),
}
ALL = {
    **{("Runware's imageInference", name): case for name, case in RUNWARE.items()},
    **{("OpenAI's images", name): case for name, case in OPENAI.items()},
    **{("Together's images", name): case for name, case in TOGETHER.items()},
}


def test_the_table_has_all_37_of_runware() -> None:
    assert (len(RUNWARE), len(OPENAI), len(TOGETHER)) == (37, 28, 16)


@pytest.mark.slow
async def test_every_argument_of_other_services_is_answered_with_what_does_it_here(
    connect: Connect, model: FakeModel, subtests: pytest.Subtests
) -> None:
    async with connect() as client:
        for (service, name), (value, words) in ALL.items():
            with subtests.test(f"{service}: {name}"):
                arguments = {"prompt": "a heron", "dry_run": True, name: value}
                if words == OURS:
                    assert "Dry run" in (await client.call_tool("generate_image", arguments)).content[0].text
                    continue
                with pytest.raises(ToolError, match=words) as caught:
                    await client.call_tool("generate_image", arguments)
                assert len(str(caught.value)) < 350 and not str(caught.value).endswith("tool: leave it out")
    assert model.requests == [] and model.uploads == []


@pytest.mark.slow
async def test_no_tool_takes_another_services_argument_for_one_of_its_own(
    emulated: Emulated, subtests: pytest.Subtests
) -> None:
    tools = {tool.name: set(tool.input_schema["properties"]) for tool in await emulated.client.list_tools()}
    assert set(tools) == TOOLS
    for tool, own in tools.items():
        for (service, name), (value, _) in ALL.items():
            if name in own:
                continue
            with subtests.test(f"{tool} with {service}: {name}"):
                with pytest.raises(ToolError, match=f"{name} is not an argument of this tool: ") as caught:
                    await emulated.client.call_tool(tool, {**CALLS[tool], name: value})
                assert not str(caught.value).endswith("tool: leave it out")
    assert emulated.drawn == []


async def test_an_answer_names_no_tool_that_is_not_offered(connect: Connect, model: FakeModel) -> None:
    async with connect(tools="generate_image") as client:
        for (_, name), (value, words) in ALL.items():
            if words != OURS:
                with pytest.raises(ToolError) as caught:
                    await client.call_tool("generate_image", {"prompt": "a heron", name: value})
                assert not [tool for tool in TOOLS - {"generate_image"} if tool in str(caught.value)]
    assert model.requests == []
