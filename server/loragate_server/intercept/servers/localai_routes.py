"""The routes of LocalAI that change something, and what may come in by each."""

from __future__ import annotations

from loragate_server.intercept.routes import Route, route

DOORS = (
    "models",
    "backends",
    "settings",
    "nodes",
    "agents",
    "training",
    "cors_proxy",
    "assistant",
)
"""By which weights, code, or requests that nobody shows to loragate come in."""

ROUTES: tuple[Route, ...] = (
    route("pictures", "images/generations"),
    route("inpainting", "images/inpainting"),
    route("upscale", "images/upscale"),
    route("video", "video"),
    route("load", "backend/load"),
    route("chat", "chat/completions"),
    route("call", "realtime/calls"),
    # A configuration may hold `lora_adapters`, and options that say where tags are looked up.
    route("models", "models/apply"),
    route("models", "models/import"),
    route("models", "models/import-uri"),
    route("models", "models/edit/*"),
    route("models", "api/models/install/*"),
    route("models", "api/models/config/*"),
    route("models", "api/models/config-json/*"),
    route("backends", "backends/apply"),
    route("backends", "backends/upgrade/*"),
    route("backends", "backends/install/*"),
    route("backends", "backends/install-external"),
    route("backends", "nodes/*/backends/install"),
    route("backends", "nodes/*/backends/upgrade"),
    # Among the settings are galleries, from which models are fetched.
    route("settings", "api/settings"),
    # A node serves models from its own disk.
    route("nodes", "api/node/register"),
    route("nodes", "api/nodes/*/approve"),
    # The action generate_image, of an agent or run by hand, and the webhooks of a task send
    # requests of their own to any address, also to the server itself. What agents read, skills and
    # collections, tells them what to do.
    *(
        route("agents", f"api/agents{path}")
        for path in (
            *("", "/*", "/*/*", "/actions/*/run", "/git-repos/*/sync", "/git-repos/*/toggle"),
            *("/skills/*/resources", "/skills/*/resources/*", "/skills/*/resources/*/*"),
            *("/collections/*/upload", "/collections/*/sources"),
        )
    ),
    route("agents", "api/agent/tasks"),
    route("agents", "api/agent/tasks/*"),
    route("agents", "api/agent/tasks/*/execute"),
    route("agents", "api/agent/jobs/execute"),
    # What is trained or quantized becomes a model.
    route("training", "fine-tuning/jobs"),
    route("training", "fine-tuning/jobs/*/export"),
    route("training", "fine-tuning/datasets"),
    route("training", "quantization/jobs"),
    route("training", "quantization/jobs/*/import"),
    route("cors_proxy", "api/cors-proxy"),
)

PASSED: tuple[str, ...] = (
    *(
        f"POST {path}"
        for path in (
            *("/v1/completions", "/completions", "/v1/engines/*/completions"),
            *("/v1/edits", "/edits", "/v1/moderations", "/moderations"),
            *("/v1/embeddings", "/embeddings", "/v1/engines/*/embeddings"),
            *("/v1/messages", "/messages", "/v1/responses", "/responses"),
            *("/v1/responses/*/cancel", "/responses/*/cancel"),
            *("/v1/audio/*", "/audio/*", "/tts", "/vad", "/v1/vad"),
            *("/v1/text-to-speech/*", "/v1/sound-generation", "/v1/rerank"),
            *("/v1/realtime/sessions", "/v1/realtime/transcription_session"),
            *("/v1/mcp/prompts/*/*", "/v1/mcp/resources/*/read"),
            *("/v1/tokenize", "/v1/detokenize", "/v1/detection", "/v1/depth"),
            *("/v1/face/*", "/v1/voice/*", "/api/voice-profiles", "/stores/*"),
            *("/3d/generations", "/3d/remesh", "/backend/shutdown", "/v1/backend/shutdown"),
            *("/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"),
            *("/api/score", "/api/pii/*", "/api/router/decide", "/api/router/*/corpus"),
            *("/models/delete/*", "/models/reload", "/api/models/delete/*"),
            *("/api/models/vram-estimate", "/backends/delete/*", "/backends/upgrades/check"),
            *("/api/backends/delete/*", "/api/backends/system/delete/*"),
            *("/api/backends/upgrades/check",),
            *(f"/api/operations/*/{verb}" for verb in ("cancel", "pause", "dismiss")),
            *("/api/traces/clear", "/api/backend-traces/clear", "/api/backend-logs/*/clear"),
            *("/api/fine-tuning/jobs/*/stop", "/api/quantization/jobs/*/stop"),
            *("/api/agents/collections/*/search", "/api/agents/collections/*/reset"),
            *("/api/agents/actions/*/definition", "/api/agent/jobs/*/cancel"),
            "/api/branding/asset/*",
            *("/api/node/*/heartbeat", "/api/node/*/drain", "/api/node/*/resume"),
            *("/api/node/*/deregister", "/api/nodes/*/drain", "/api/nodes/*/resume"),
            *("/api/nodes/*/backends/delete", "/api/nodes/scheduling"),
            *("/api/nodes/*/models/unload", "/api/nodes/*/models/delete"),
            *("/api/auth/token-login", "/api/auth/register", "/api/auth/login"),
            *("/api/auth/logout", "/api/auth/api-keys", "/api/auth/admin/invites"),
        )
    ),
    "PUT /models/toggle-state/*/*",
    "PUT /models/toggle-pinned/*/*",
    "PUT /api/nodes/*/labels",
    "PATCH /api/nodes/*/labels",
    "PUT /api/nodes/*/max-replicas-per-model",
    "PUT /api/nodes/*/vram-budget",
    "PUT /api/auth/profile",
    "PUT /api/auth/password",
    "PUT /api/auth/admin/users/*/*",
    "DELETE /api/agents/**",
    "DELETE /api/agent/tasks/*",
    "DELETE /api/agent/jobs/*",
    "DELETE /api/auth/**",
    "DELETE /api/branding/asset/*",
    "DELETE /api/fine-tuning/jobs/*",
    "DELETE /api/node/*",
    "DELETE /api/nodes/**",
    "DELETE /api/operations/history",
    "DELETE /api/quantization/jobs/*",
    "DELETE /api/router/*/corpus",
    "DELETE /api/voice-profiles/*",
    # Logs that the server sends, sound, and the texts of a language model.
    "UPGRADE /ws/backend-logs/*",
    "UPGRADE /ws/nodes/*/backend-logs/*",
    "UPGRADE /audio/transformations/stream",
    "UPGRADE /v1/responses",
    "UPGRADE /responses",
)
"""Where nothing but models with the LoRAs of their configurations is loaded."""
