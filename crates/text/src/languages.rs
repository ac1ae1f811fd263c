//! Names of languages: ISO 639-1 and 639-3 codes, BCP 47 tags, and what models call them.

/// ISO 639-3, ISO 639-1 (or nothing) and English name.
const TABLE: &[(&str, &str, &str)] = &[
    ("afr", "af", "Afrikaans"),
    ("aka", "ak", "Akan"),
    ("amh", "am", "Amharic"),
    ("ara", "ar", "Arabic"),
    ("asm", "as", "Assamese"),
    ("ast", "", "Asturian"),
    ("aym", "ay", "Aymara"),
    ("aze", "az", "Azerbaijani"),
    ("bak", "ba", "Bashkir"),
    ("bam", "bm", "Bambara"),
    ("bel", "be", "Belarusian"),
    ("ben", "bn", "Bengali"),
    ("bod", "bo", "Tibetan"),
    ("bos", "bs", "Bosnian"),
    ("bre", "br", "Breton"),
    ("bul", "bg", "Bulgarian"),
    ("cat", "ca", "Catalan"),
    ("ceb", "", "Cebuano"),
    ("ces", "cs", "Czech"),
    ("ckb", "", "Central Kurdish"),
    ("cos", "co", "Corsican"),
    ("cym", "cy", "Welsh"),
    ("dan", "da", "Danish"),
    ("deu", "de", "German"),
    ("div", "dv", "Dhivehi"),
    ("dzo", "dz", "Dzongkha"),
    ("ell", "el", "Greek"),
    ("eng", "en", "English"),
    ("epo", "eo", "Esperanto"),
    ("est", "et", "Estonian"),
    ("eus", "eu", "Basque"),
    ("ewe", "ee", "Ewe"),
    ("fao", "fo", "Faroese"),
    ("fas", "fa", "Persian"),
    ("fij", "fj", "Fijian"),
    ("fin", "fi", "Finnish"),
    ("fra", "fr", "French"),
    ("fry", "fy", "Western Frisian"),
    ("ful", "ff", "Fulah"),
    ("gla", "gd", "Scottish Gaelic"),
    ("gle", "ga", "Irish"),
    ("glg", "gl", "Galician"),
    ("glv", "gv", "Manx"),
    ("grn", "gn", "Guarani"),
    ("guj", "gu", "Gujarati"),
    ("hat", "ht", "Haitian Creole"),
    ("hau", "ha", "Hausa"),
    ("heb", "he", "Hebrew"),
    ("hin", "hi", "Hindi"),
    ("hrv", "hr", "Croatian"),
    ("hun", "hu", "Hungarian"),
    ("hye", "hy", "Armenian"),
    ("ibo", "ig", "Igbo"),
    ("ilo", "", "Iloko"),
    ("ind", "id", "Indonesian"),
    ("isl", "is", "Icelandic"),
    ("ita", "it", "Italian"),
    ("jav", "jv", "Javanese"),
    ("jpn", "ja", "Japanese"),
    ("kan", "kn", "Kannada"),
    ("kas", "ks", "Kashmiri"),
    ("kat", "ka", "Georgian"),
    ("kau", "kr", "Kanuri"),
    ("kaz", "kk", "Kazakh"),
    ("khm", "km", "Khmer"),
    ("kik", "ki", "Kikuyu"),
    ("kin", "rw", "Kinyarwanda"),
    ("kir", "ky", "Kyrgyz"),
    ("kon", "kg", "Kongo"),
    ("kor", "ko", "Korean"),
    ("kur", "ku", "Kurdish"),
    ("lao", "lo", "Lao"),
    ("lat", "la", "Latin"),
    ("lav", "lv", "Latvian"),
    ("lim", "li", "Limburgish"),
    ("lin", "ln", "Lingala"),
    ("lit", "lt", "Lithuanian"),
    ("ltz", "lb", "Luxembourgish"),
    ("lug", "lg", "Ganda"),
    ("mal", "ml", "Malayalam"),
    ("mar", "mr", "Marathi"),
    ("mkd", "mk", "Macedonian"),
    ("mlg", "mg", "Malagasy"),
    ("mlt", "mt", "Maltese"),
    ("mon", "mn", "Mongolian"),
    ("mri", "mi", "Maori"),
    ("msa", "ms", "Malay"),
    ("mya", "my", "Burmese"),
    ("nep", "ne", "Nepali"),
    ("nld", "nl", "Dutch"),
    ("nno", "nn", "Norwegian Nynorsk"),
    ("nor", "no", "Norwegian"),
    ("nso", "", "Northern Sotho"),
    ("nya", "ny", "Chichewa"),
    ("oci", "oc", "Occitan"),
    ("ori", "or", "Odia"),
    ("orm", "om", "Oromo"),
    ("oss", "os", "Ossetian"),
    ("pan", "pa", "Punjabi"),
    ("pol", "pl", "Polish"),
    ("por", "pt", "Portuguese"),
    ("pus", "ps", "Pashto"),
    ("que", "qu", "Quechua"),
    ("roh", "rm", "Romansh"),
    ("ron", "ro", "Romanian"),
    ("run", "rn", "Rundi"),
    ("rus", "ru", "Russian"),
    ("sag", "sg", "Sango"),
    ("san", "sa", "Sanskrit"),
    ("sin", "si", "Sinhala"),
    ("slk", "sk", "Slovak"),
    ("slv", "sl", "Slovenian"),
    ("smo", "sm", "Samoan"),
    ("sna", "sn", "Shona"),
    ("snd", "sd", "Sindhi"),
    ("som", "so", "Somali"),
    ("sot", "st", "Southern Sotho"),
    ("spa", "es", "Spanish"),
    ("sqi", "sq", "Albanian"),
    ("srd", "sc", "Sardinian"),
    ("srp", "sr", "Serbian"),
    ("ssw", "ss", "Swati"),
    ("sun", "su", "Sundanese"),
    ("swa", "sw", "Swahili"),
    ("swe", "sv", "Swedish"),
    ("tam", "ta", "Tamil"),
    ("tat", "tt", "Tatar"),
    ("tel", "te", "Telugu"),
    ("tgk", "tg", "Tajik"),
    ("tgl", "tl", "Tagalog"),
    ("tha", "th", "Thai"),
    ("tir", "ti", "Tigrinya"),
    ("tsn", "tn", "Tswana"),
    ("tso", "ts", "Tsonga"),
    ("tuk", "tk", "Turkmen"),
    ("tur", "tr", "Turkish"),
    ("twi", "tw", "Twi"),
    ("uig", "ug", "Uyghur"),
    ("ukr", "uk", "Ukrainian"),
    ("urd", "ur", "Urdu"),
    ("uzb", "uz", "Uzbek"),
    ("vie", "vi", "Vietnamese"),
    ("wol", "wo", "Wolof"),
    ("xho", "xh", "Xhosa"),
    ("yid", "yi", "Yiddish"),
    ("yor", "yo", "Yoruba"),
    ("yue", "", "Cantonese"),
    ("zha", "za", "Zhuang"),
    ("zho", "zh", "Chinese"),
    ("zul", "zu", "Zulu"),
];

/// Single languages that models name for the language group that people ask for, and other codes of one language.
const SAME: &[(&str, &str)] = &[
    ("als", "sqi"),
    ("arb", "ara"),
    ("ayr", "aym"),
    ("azj", "aze"),
    ("cmn", "zho"),
    ("ekk", "est"),
    ("fuv", "ful"),
    ("gaz", "orm"),
    ("khk", "mon"),
    ("kmr", "kur"),
    ("knc", "kau"),
    ("lvs", "lav"),
    ("nob", "nor"),
    ("npi", "nep"),
    ("ory", "ori"),
    ("pbt", "pus"),
    ("pes", "fas"),
    ("plt", "mlg"),
    ("quy", "que"),
    ("swh", "swa"),
    ("uzn", "uzb"),
    ("ydd", "yid"),
    ("zsm", "msa"),
    // Codes of ISO 639-1 that were replaced or that models write for others, and those of ISO 639-2/B.
    ("iw", "heb"),
    ("in", "ind"),
    ("ji", "yid"),
    ("jw", "jav"),
    ("nb", "nor"),
    ("ns", "nso"),
    ("fil", "tgl"),
    ("ger", "deu"),
    ("fre", "fra"),
    ("chi", "zho"),
    ("dut", "nld"),
    ("gre", "ell"),
    ("cze", "ces"),
    ("per", "fas"),
    ("rum", "ron"),
    ("slo", "slk"),
    ("alb", "sqi"),
    ("arm", "hye"),
    ("baq", "eus"),
    ("bur", "mya"),
    ("geo", "kat"),
    ("ice", "isl"),
    ("mac", "mkd"),
    ("may", "msa"),
    ("tib", "bod"),
    ("wel", "cym"),
];

/// A language, perhaps in a script or a region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Language {
    /// As it was written, in lower case: `cmn`, `zh`.
    code: String,
    /// ISO 639-3 where it is known, groups for their usual member: `zho`.
    main: String,
    /// ISO 15924: `Hans`.
    script: Option<String>,
    /// `TW`.
    region: Option<String>,
}

impl Language {
    /// Reads `zho`, `zh`, `zh-Hans`, `zh_CN`, `pt-BR`, `zho_Hant`, `Chinese`; `None` if it is none of these forms.
    pub fn parse(text: &str) -> Option<Language> {
        let text = text.trim();
        if let Some((code, ..)) = TABLE.iter().find(|(.., name)| name.eq_ignore_ascii_case(text)) {
            return Language::parse(code);
        }
        let mut parts = text.split(['-', '_']);
        let code = parts.next()?.to_ascii_lowercase();
        if !(2..=3).contains(&code.len()) || !code.bytes().all(|b| b.is_ascii_lowercase()) {
            return None;
        }
        let (mut script, mut region) = (None, None);
        for part in parts {
            let letters = part.bytes().all(|b| b.is_ascii_alphabetic());
            match part.len() {
                4 if letters && script.is_none() => {
                    let (first, rest) = part.split_at(1);
                    script = Some(first.to_ascii_uppercase() + &rest.to_ascii_lowercase());
                }
                2 if letters && region.is_none() => region = Some(part.to_ascii_uppercase()),
                3 if part.bytes().all(|b| b.is_ascii_digit()) && region.is_none() => {
                    region = Some(part.to_owned())
                }
                _ => return None,
            }
        }
        let same = SAME.iter().find(|(from, _)| *from == code).map(|(_, to)| *to);
        let table =
            TABLE.iter().find(|(long, short, _)| *long == code || *short == code).map(|(long, ..)| *long);
        let main = same.or(table).unwrap_or(&code).to_owned();
        if main == "zho" && script.is_none() {
            script = match region.as_deref() {
                Some("TW" | "HK" | "MO") => Some("Hant".to_owned()),
                Some("CN" | "SG") => Some("Hans".to_owned()),
                _ => None,
            };
        }
        Some(Language { code, main, script, region })
    }

    /// English name, or the code where it has none here.
    pub fn name(&self) -> &str {
        TABLE.iter().find(|(long, ..)| *long == self.main).map_or(&self.code, |(.., name)| name)
    }

    /// ISO 639-3, as far as it is known.
    pub fn iso_639_3(&self) -> &str {
        &self.main
    }

    /// How well a model's language serves this one; `None`: not at all.
    pub fn fit(&self, offered: &Language) -> Option<u32> {
        if self.main != offered.main {
            return None;
        }
        let mut fit = 0;
        for (own, other) in [(&self.script, &offered.script), (&self.region, &offered.region)] {
            fit += match (own, other) {
                (Some(own), Some(other)) if own == other => 8,
                // Another script is another text; another region is not.
                (Some(_), Some(_)) if std::ptr::eq(own, &self.script) => return None,
                _ => 0,
            };
        }
        if self.code == offered.code {
            fit += 4;
        }
        // Unless said otherwise: the script that most write.
        if self.script.is_none() && matches!(offered.script.as_deref(), None | Some("Hans" | "Latn" | "Arab"))
        {
            fit += 1;
        }
        Some(fit)
    }
}

/// The language that a token of a model's vocabulary stands for: `eng_Latn`, `en_XX`, `__en__`, `>>deu<<`.
pub fn of_token(token: &str) -> Option<Language> {
    let inner = |open: &str, close: &str| token.strip_prefix(open)?.strip_suffix(close);
    if let Some(code) = inner("__", "__").or_else(|| inner(">>", "<<")) {
        return Language::parse(code);
    }
    let (code, rest) = token.split_once('_')?;
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase());
    let script = code.len() == 3
        && rest.len() == 4
        && rest.starts_with(|c: char| c.is_ascii_uppercase())
        && lower(&rest[1..]);
    let region = code.len() == 2 && rest.len() == 2 && rest.bytes().all(|b| b.is_ascii_uppercase());
    if !lower(code) || !(script || region) {
        return None;
    }
    // `XX` is no region.
    if rest == "XX" { Language::parse(code) } else { Language::parse(token) }
}

#[cfg(test)]
mod tests {
    use super::{Language, TABLE, of_token};

    #[test]
    fn reads_every_form() {
        for text in ["zho", "zh", "ZH", "cmn", "Chinese", "chi", "zh-Hans", "zh_CN", "zho_Hans", "zh-Hans-CN"]
        {
            assert_eq!(
                Language::parse(text).map(|l| l.iso_639_3().to_owned()).as_deref(),
                Some("zho"),
                "{text}"
            );
        }
        for text in ["", "z", "english please", "zh-", "1234", "zh-Hans-CN-x-y", "zhong"] {
            assert_eq!(Language::parse(text), None, "{text}");
        }
        assert_eq!(Language::parse("pt-BR").unwrap().name(), "Portuguese");
        assert_eq!(Language::parse("ace").unwrap().name(), "ace");
    }

    #[test]
    fn tokens_of_every_family_are_told_from_others() {
        let code = |token: &str| of_token(token).map(|l| l.iso_639_3().to_owned());
        for (token, language) in [
            ("eng_Latn", "eng"),
            ("en_XX", "eng"),
            ("__en__", "eng"),
            (">>deu<<", "deu"),
            ("zho_Hant", "zho"),
            ("pt_XX", "por"),
            (">>cmn_Hans<<", "zho"),
        ] {
            assert_eq!(code(token).as_deref(), Some(language), "{token}");
        }
        for token in ["<s>", "en", "a_b", "the_best", "__x", "▁en_XX", "abc_de"] {
            assert_eq!(code(token), None, "{token}");
        }
    }

    #[test]
    fn the_best_of_several_is_found() {
        let fit = |wanted: &str, token: &str| Language::parse(wanted).unwrap().fit(&of_token(token).unwrap());
        assert!(fit("zho", "zho_Hans") > fit("zho", "zho_Hant"));
        assert!(fit("zh-TW", "zho_Hant") > fit("zh-TW", "zho_Hans"));
        assert_eq!(fit("zh-Hant", "zho_Hans"), None);
        assert!(fit("nob", "nob_Latn") > fit("nob", "nor_Latn"));
        assert!(fit("ara", "arb_Arab").is_some() && fit("fa", "pes_Arab").is_some());
        assert_eq!(fit("deu", "eng_Latn"), None);
    }

    #[test]
    fn the_table_is_sorted_and_has_no_code_twice() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut short: Vec<&str> =
            TABLE.iter().map(|(_, short, _)| *short).filter(|s| !s.is_empty()).collect();
        let count = short.len();
        short.sort_unstable();
        short.dedup();
        assert_eq!(short.len(), count);
    }
}
