//! The texts of `kun help TOPIC`.

/// Every topic with its text.
pub const ALL: [(&str, &str); 6] = [
    ("models", include_str!("topics/models.txt")),
    ("settings", include_str!("topics/settings.txt")),
    ("environment", include_str!("topics/environment.txt")),
    ("exit-codes", include_str!("topics/exit-codes.txt")),
    ("chat", include_str!("topics/chat.txt")),
    ("json", include_str!("topics/json.txt")),
];

/// The text of a topic.
pub fn find(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(topic, _)| *topic == name).map(|(_, text)| *text)
}
