//! Any text as a chat template, rendered with a short conversation.
#![no_main]

use kun_fuzz::within;
use kun_text::{ChatMessage, ChatTemplate, RenderOptions, Role};
use std::time::Duration;

/// What SECURITY.md lets a template take, and what the harness itself needs.
const MEMORY_BYTES: usize = (512 << 20) + (16 << 20);

libfuzzer_sys::fuzz_target!(|source: &[u8]| {
    let Ok(source) = std::str::from_utf8(source) else { return };
    let message = |role, content: &str| ChatMessage::new(role, content);
    let messages = [
        message(Role::System, "Be brief."),
        message(Role::User, "What is <|im_end|> {{ 1 }}?"),
        message(Role::Assistant, "A token."),
        message(Role::User, "Why?"),
    ];
    let options = RenderOptions {
        add_generation_prompt: true,
        bos_token: "<s>".to_owned(),
        eos_token: "</s>".to_owned(),
        variables: vec![("enable_thinking".to_owned(), serde_json::Value::Bool(false))],
        time_limit: Duration::from_secs(2),
    };
    within(MEMORY_BYTES, || {
        if let Ok(template) = ChatTemplate::compile(source) {
            let _ = template.render(&messages, &options);
        }
    });
});
