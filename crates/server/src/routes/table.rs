//! Every route, with the fields of its body.

use super::{Call, Reply};
use crate::schema::Field;
use crate::{anthropic, batch, ollama, openai, own, tasks, ui};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    /// As OpenAPI spells it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Delete => "delete",
        }
    }
}

/// One route.
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// With `{id}` for a part that may hold anything, slashes too.
    pub(crate) path: &'static str,
    /// Fields of its JSON body; `None`: it takes none.
    pub(crate) fields: Option<&'static [&'static [Field]]>,
    /// Whether the body may be a form with a file named `image`, or the bytes of a picture alone.
    pub(crate) takes_file: bool,
    pub(crate) about: &'static str,
    pub(crate) handler: fn(Call) -> Reply,
}

impl Route {
    /// Whether its body is a form with a file of any size, which the handler reads.
    pub(crate) fn is_upload(&self) -> bool {
        self.path == "/v1/files" && self.verb == Verb::Post
    }

    /// Whether it may take as long as its work does: drawing takes minutes a picture, and ends when whoever asked leaves.
    pub(crate) fn is_long_work(&self) -> bool {
        self.path.starts_with("/v1/images/")
    }
}

const fn get(path: &'static str, about: &'static str, handler: fn(Call) -> Reply) -> Route {
    Route { verb: Verb::Get, path, fields: None, takes_file: false, about, handler }
}
const fn post(
    path: &'static str,
    fields: &'static [&'static [Field]],
    about: &'static str,
    handler: fn(Call) -> Reply,
) -> Route {
    Route { verb: Verb::Post, path, fields: Some(fields), takes_file: false, about, handler }
}

/// A route that takes a picture.
const fn picture(
    path: &'static str,
    fields: &'static [&'static [Field]],
    about: &'static str,
    handler: fn(Call) -> Reply,
) -> Route {
    Route { verb: Verb::Post, path, fields: Some(fields), takes_file: true, about, handler }
}

const fn delete(path: &'static str, about: &'static str, handler: fn(Call) -> Reply) -> Route {
    Route { verb: Verb::Delete, path, fields: None, takes_file: false, about, handler }
}

/// Every route. Those below `/v1` answer without it too.
pub(crate) const ROUTES: &[Route] = &[
    get("/livez", "Whether the process answers", own::health::live),
    get("/readyz", "Whether requests are taken: 503 while loading or stopping", own::health::ready),
    get("/health", "The same as /readyz", own::health::ready),
    get("/metrics", "Figures in the text format of Prometheus", own::health::metrics),
    get("/v1/limits", "Bounds on requests", own::health::limits),
    get("/openapi.json", "This description", own::health::describe),
    get("/v1/models", "Every model on this disk", openai::models::list),
    get("/v1/models/{id}", "One model", openai::models::show),
    post("/v1/chat/completions", openai::chat::FIELDS, "Answer a conversation", openai::chat::create),
    post("/v1/embeddings", openai::embeddings::FIELDS, "Texts to vectors", openai::embeddings::create),
    post(
        "/v1/rerank",
        openai::embeddings::RERANK,
        "Texts by how well they answer a query",
        openai::embeddings::rerank,
    ),
    post(
        "/v2/rerank",
        openai::embeddings::RERANK,
        "The same, at Cohere's address",
        openai::embeddings::rerank,
    ),
    post(
        "/api/embed",
        openai::embeddings::OLLAMA,
        "Texts to vectors, by Ollama's API",
        openai::embeddings::ollama,
    ),
    post(
        "/api/embeddings",
        openai::embeddings::OLLAMA,
        "One text to a vector, by Ollama's API",
        openai::embeddings::ollama_one,
    ),
    picture(
        "/v1/classify",
        tasks::classify::FIELDS,
        "Which label a text or picture has",
        tasks::classify::create,
    ),
    picture("/v1/detect", tasks::pictures::SCORED, "What is where in a picture", tasks::pictures::detect),
    picture(
        "/v1/segment",
        tasks::pictures::SCORED,
        "Which pixels of a picture are what",
        tasks::pictures::segment,
    ),
    picture(
        "/v1/depth",
        tasks::pictures::DEPTH,
        "How far everything in a picture is",
        tasks::pictures::depth,
    ),
    picture("/v1/pose", tasks::pictures::SCORED, "Key points of people", tasks::pictures::pose),
    picture("/v1/faces", tasks::pictures::SCORED, "Faces", tasks::pictures::faces),
    picture("/v1/ocr", tasks::pictures::SCORED, "The text of a picture", tasks::pictures::ocr),
    post("/v1/images/generations", tasks::draw::DRAW, "Draw a picture from words", tasks::draw::generate),
    picture("/v1/images/edits", tasks::draw::EDIT, "Change a picture by words", tasks::draw::edit),
    picture("/v1/images/variations", tasks::draw::VARY, "Draw a picture anew", tasks::draw::vary),
    picture("/v1/images/upscale", tasks::pictures::MADE, "Enlarge a picture", tasks::pictures::upscale),
    picture(
        "/v1/images/denoise",
        tasks::pictures::MADE,
        "Remove noise from a picture",
        tasks::pictures::denoise,
    ),
    picture(
        "/v1/images/restore",
        tasks::pictures::MADE,
        "The same, by another name",
        tasks::pictures::denoise,
    ),
    picture(
        "/v1/images/enhance",
        tasks::pictures::MADE,
        "Brighten a picture taken in the dark",
        tasks::pictures::enhance,
    ),
    picture(
        "/v1/images/stylize",
        tasks::pictures::MADE,
        "Paint a picture in a style",
        tasks::pictures::stylize,
    ),
    picture(
        "/v1/images/cutout",
        tasks::pictures::MADE,
        "Remove the background of a picture",
        tasks::pictures::cutout,
    ),
    post(
        "/v1/extract",
        tasks::extract::FIELDS,
        "Names, places and personal data in texts",
        tasks::extract::create,
    ),
    post(
        "/v1/answer",
        tasks::answer::FIELDS,
        "Answer a question with words of documents",
        tasks::answer::create,
    ),
    post("/v1/translate", tasks::write::TRANSLATE, "Translate texts", tasks::write::translate),
    post("/v1/summarize", tasks::write::SUMMARIZE, "Summarise texts", tasks::write::summarize),
    post("/v1/moderations", tasks::moderate::FIELDS, "Whether texts may be shown", tasks::moderate::create),
    post("/v1/completions", openai::completions::FIELDS, "Continue a text", openai::completions::create),
    post(
        "/v1/responses",
        openai::responses::FIELDS,
        "Answer a conversation, item by item",
        openai::responses::create,
    ),
    post(
        "/v1/responses/input_tokens",
        openai::responses::COUNT_FIELDS,
        "Count the tokens of a prompt",
        openai::responses::count,
    ),
    get("/v1/responses/{id}", "A stored response", openai::responses::show),
    delete("/v1/responses/{id}", "Forget a stored response", openai::responses::delete),
    Route {
        verb: Verb::Post,
        path: "/v1/responses/{id}/cancel",
        fields: None,
        takes_file: false,
        about: "Stop a background response",
        handler: openai::responses::cancel,
    },
    Route {
        verb: Verb::Post,
        path: "/v1/files",
        fields: None,
        takes_file: false,
        about: "Keep a file of requests",
        handler: batch::upload,
    },
    get("/v1/files", "Files that this key has kept", batch::list_files),
    get("/v1/files/{id}", "What is known of a file", batch::show_file),
    get("/v1/files/{id}/content", "The bytes of a file", batch::content),
    delete("/v1/files/{id}", "Forget a file", batch::delete_file),
    post("/v1/batches", batch::BATCH_FIELDS, "Answer the requests of a file", batch::create),
    get("/v1/batches", "Batches of this key", batch::list),
    get("/v1/batches/{id}", "Where a batch stands", batch::show),
    Route {
        verb: Verb::Post,
        path: "/v1/batches/{id}/cancel",
        fields: None,
        takes_file: false,
        about: "Stop a batch",
        handler: batch::cancel,
    },
    post("/v1/messages", anthropic::FIELDS, "Answer a conversation, by Anthropic's API", anthropic::create),
    post(
        "/v1/messages/count_tokens",
        anthropic::COUNT_FIELDS,
        "Count the tokens of a prompt",
        anthropic::count,
    ),
    get("/api/version", "The version of Ollama's API", ollama::version),
    get("/api/tags", "Every model on this disk, by Ollama's API", ollama::tags),
    get("/api/ps", "Loaded models, by Ollama's API", ollama::running),
    post("/api/show", ollama::SHOW, "One model, by Ollama's API", ollama::show),
    post("/api/chat", ollama::CHAT, "Answer a conversation, by Ollama's API", ollama::chat),
    post("/api/generate", ollama::GENERATE, "Answer a question, by Ollama's API", ollama::generate),
    post("/api/pull", ollama::PULL, "Fetch a model", ollama::pull),
    Route {
        verb: Verb::Delete,
        path: "/api/delete",
        fields: Some(ollama::SHOW),
        takes_file: false,
        about: "Remove a model from the store",
        handler: ollama::delete,
    },
    get("/v1/status", "Loaded models, memory, catalogue", own::models::status),
    post("/v1/models/load", own::models::NAMED, "Load a model", own::models::load),
    post("/v1/models/unload", own::models::NAMED, "Let a model go", own::models::unload),
    get("/", "The page", ui::page),
    get("/app.js", "The page's program", ui::script),
    get("/play.js", "The page's playground", ui::play),
    get("/pictures.js", "The page's work with pictures", ui::pictures),
    get("/compare.js", "The page's pictures before and after", ui::compare),
    get("/draw.js", "The page's drawing", ui::draw),
    get("/mask.js", "The page's brush", ui::mask),
    get("/nodes.js", "The page's elements", ui::nodes),
    get("/live.js", "The page's figures", ui::live),
    get("/words.js", "The page's words", ui::words),
    get("/style.css", "The page's looks", ui::style),
    get("/icon.svg", "The page's icon", ui::icon),
    get("/tokenizer_info", "The default model's first and last token", own::tokens::info),
    post("/tokenize", own::tokens::TOKENIZE, "Text to token ids", own::tokens::tokenize),
    post("/detokenize", own::tokens::DETOKENIZE, "Token ids to text", own::tokens::detokenize),
];
