"""The messages of Gemini's requests, field by field."""

from typing import Any

Message = dict[str, Any]
"""Field name in camelCase -> its kind: a word, a tuple of enum names, a message, a list of one kind; `...` is any."""

_BLOB: Message = {"mimeType": "string", "data": "bytes", "displayName": "string"}
_FILE: Message = {"mimeType": "string", "fileUri": "string", "displayName": "string"}
_PART: Message = {
    "text": "string",
    "inlineData": _BLOB,
    "fileData": _FILE,
    "functionCall": ...,
    "functionResponse": ...,
    "executableCode": ...,
    "codeExecutionResult": ...,
    "thought": "bool",
    "thoughtSignature": "bytes",
    "videoMetadata": ...,
    "partMetadata": ...,
    "mediaResolution": ...,
}
CONTENT: Message = {"role": "string", "parts": [_PART]}
_CATEGORIES = tuple(
    f"HARM_CATEGORY_{name}"
    for name in (
        "UNSPECIFIED",
        "HARASSMENT",
        "HATE_SPEECH",
        "SEXUALLY_EXPLICIT",
        "DANGEROUS_CONTENT",
        "CIVIC_INTEGRITY",
    )
)
_THRESHOLDS = (
    "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
    "BLOCK_LOW_AND_ABOVE",
    "BLOCK_MEDIUM_AND_ABOVE",
    "BLOCK_ONLY_HIGH",
    "BLOCK_NONE",
    "OFF",
)
_GENERATION_CONFIG: Message = {
    "candidateCount": "int",
    "stopSequences": ["string"],
    "maxOutputTokens": "int",
    "temperature": "number",
    "topP": "number",
    "topK": "int",
    "seed": "int",
    "presencePenalty": "number",
    "frequencyPenalty": "number",
    "responseMimeType": "string",
    "responseSchema": ...,
    "responseJsonSchema": ...,
    "responseLogprobs": "bool",
    "logprobs": "int",
    "enableEnhancedCivicAnswers": "bool",
    "speechConfig": ...,
    "mediaResolution": (
        "MEDIA_RESOLUTION_UNSPECIFIED",
        "MEDIA_RESOLUTION_LOW",
        "MEDIA_RESOLUTION_MEDIUM",
        "MEDIA_RESOLUTION_HIGH",
    ),
    "responseModalities": [("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO")],
    "thinkingConfig": {
        "includeThoughts": "bool",
        "thinkingBudget": "int",
        "thinkingLevel": ("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"),
    },
    "imageConfig": {"aspectRatio": "string", "imageSize": "string"},
}
GENERATE_CONTENT: Message = {
    "model": "string",
    "contents": [CONTENT],
    "systemInstruction": CONTENT,
    "safetySettings": [{"category": _CATEGORIES, "threshold": _THRESHOLDS}],
    "tools": [
        {
            "googleSearch": {"searchTypes": {"webSearch": {}, "imageSearch": {}}, "timeRangeFilter": ...},
            "functionDeclarations": ...,
            "codeExecution": ...,
            "urlContext": ...,
        }
    ],
    "toolConfig": ...,
    "labels": ...,
    "serviceTier": ("unspecified", "standard", "flex", "priority"),
    "store": "bool",
    "cachedContent": "string",
    "continuationToken": "string",
    "generationConfig": _GENERATION_CONFIG,
}
COUNT_TOKENS: Message = {"contents": [CONTENT], "generateContentRequest": GENERATE_CONTENT}
START_UPLOAD: Message = {
    "file": {"name": "string", "displayName": "string", "mimeType": "string", "sizeBytes": "int", "source": "string"}
}
BATCH_GENERATE_CONTENT: Message = {
    "batch": {
        "model": "string",
        "displayName": "string",
        "inputConfig": {
            "fileName": "string",
            "requests": {"requests": [{"request": GENERATE_CONTENT, "metadata": ...}]},
        },
        "priority": "int",
        "webhookConfig": ...,
    }
}
BATCH_LINE: Message = {"key": "string", "request": ...}
