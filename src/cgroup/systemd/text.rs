//! Annotations `org.systemd.property.NAME` → properties of the container's unit.
//!
//! Pure. The values are GVariant text (glib's "GVariant Text Format"): what `busctl`-like tools and other runtimes take.
//! Called by `systemd::plan`.

use super::value::Value;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;

/// What an annotation about a property begins with.
pub const PREFIX: &str = "org.systemd.property.";
/// Deepest nesting of a value.
const MAX_DEPTH: usize = 16;
/// Longest type of a value, bytes, and how deep arrays and structures may be nested in it (D-Bus specification, "Valid
/// Signatures").
const MAX_TYPE: usize = 255;
const MAX_NESTING: usize = 32;
/// Longest text of a value, bytes: in memory a value takes many times as much.
const MAX_TEXT: usize = 1 << 20;
const MICROSECONDS: f64 = 1_000_000.0;

/// The properties that annotations ask for, sorted by name. Errors name the annotation.
pub fn properties(annotations: &HashMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if name.len() < 3 {
            bail!("/annotations: annotation {key} name incorrect: too short");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            bail!("/annotations: annotation {key} name incorrect: contains non-alphabetic character");
        }
        let value = parse(text)
            .and_then(|value| seconds(name, value))
            .with_context(|| format!("/annotations: annotation {key}={text} value parse error"))?;
        all.push(value);
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// Documented names end in `Sec`, those of D-Bus in `USec`.
fn seconds(name: &str, value: Value) -> Result<(String, Value)> {
    let short = name.strip_suffix("Sec").filter(|short| short.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(short) = short else { return Ok((name.into(), value)) };
    let seconds = match value {
        Value::Byte(n) => i128::from(n),
        Value::I16(n) => i128::from(n),
        Value::U16(n) => i128::from(n),
        Value::I32(n) => i128::from(n),
        Value::U32(n) => i128::from(n),
        Value::I64(n) => i128::from(n),
        Value::U64(n) => i128::from(n),
        Value::Double(n) => return Ok((format!("{short}USec"), Value::U64((n * MICROSECONDS) as u64))),
        _ => bail!("not a number"),
    };
    let micros = u64::try_from(seconds * 1_000_000).ok().context("out of range")?;
    Ok((format!("{short}USec"), Value::U64(micros)))
}

/// Parses one value.
pub fn parse(text: &str) -> Result<Value> {
    if text.len() > MAX_TEXT {
        bail!("longer than {MAX_TEXT} bytes");
    }
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.value(None)?;
    parser.space();
    if !parser.rest.is_empty() {
        bail!("unexpected {:?} after the value", parser.rest);
    }
    check_type(&value.signature())?;
    Ok(value)
}

/// One type that a message can carry: it has one byte for the length.
fn check_type(signature: &str) -> Result<()> {
    if signature.len() > MAX_TYPE {
        bail!("a type of more than {MAX_TYPE} bytes");
    }
    if single(signature) != Some(signature) {
        bail!("{signature:?} is not a type");
    }
    Ok(())
}

/// A text of the type signature: any number of types.
fn check_signature(text: &str) -> Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        let first = single(rest).with_context(|| format!("{text:?} is not a signature"))?;
        rest = &rest[first.len()..];
    }
    if text.len() > MAX_TYPE {
        bail!("a signature of more than {MAX_TYPE} bytes");
    }
    Ok(())
}

/// D-Bus specification, "Valid Object Paths".
fn check_path(text: &str) -> Result<()> {
    let element = |element: &str| {
        !element.is_empty() && element.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match text.strip_prefix('/') {
        Some(rest) if rest.is_empty() || rest.split('/').all(element) => Ok(()),
        _ => bail!("{text:?} is not an object's path"),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, c: char) -> bool {
        self.space();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.take(c) { Ok(()) } else { bail!("{c:?} expected before {:?}", self.rest) }
    }

    /// Letters, digits and what numbers are made of.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value, of the type `wanted` if that is known.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            bail!("nested too deep");
        }
        self.space();
        let value = match self.rest.chars().next() {
            None => bail!("a value is missing"),
            Some('@') => {
                let end = self.rest.find(char::is_whitespace).context("a value must follow a type")?;
                let signature = &self.rest[1..end];
                if single(signature) != Some(signature) {
                    bail!("{signature:?} is not a type");
                }
                self.rest = &self.rest[end..];
                self.value(Some(agree(wanted, signature)?))?
            }
            Some(quote @ ('\'' | '"')) => self.text(quote, wanted)?,
            Some('[') => self.array(wanted)?,
            Some('{') => self.dictionary(wanted)?,
            Some('(') => self.tuple(wanted)?,
            Some('<') => {
                agree(wanted, "v")?;
                self.expect('<')?;
                let inner = self.value(None)?;
                check_type(&inner.signature())?;
                self.expect('>')?;
                Value::Variant(Box::new(inner))
            }
            Some('b') if self.rest[1..].starts_with(['\'', '"']) => {
                agree(wanted, "ay")?;
                let quote = self.rest.as_bytes()[1] as char;
                self.rest = &self.rest[1..];
                let mut bytes = self.quoted(quote)?.into_bytes();
                bytes.push(0);
                Value::bytes(&bytes)
            }
            Some(_) => {
                let word = self.word();
                match (word, named_type(word)) {
                    ("true" | "false", _) => {
                        agree(wanted, "b")?;
                        Value::Bool(word == "true")
                    }
                    (_, Some(signature)) => self.value(Some(agree(wanted, signature)?))?,
                    _ => number(word, wanted)?,
                }
            }
        };
        self.depth -= 1;
        Ok(value)
    }

    fn text(&mut self, quote: char, wanted: Option<&str>) -> Result<Value> {
        let text = self.quoted(quote)?;
        match wanted {
            None | Some("s") => Ok(Value::Text(text)),
            Some("o") => check_path(&text).map(|()| Value::Path(text)),
            Some("g") => check_signature(&text).map(|()| Value::Signature(text)),
            Some(other) => bail!("a string is not of type {other}"),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\0' => bail!("a string contains a NUL byte"),
                '\\' => {
                    let (_, escaped) = chars.next().context("a string ends early")?;
                    text.push(match escaped {
                        'a' => '\x07',
                        'b' => '\x08',
                        'f' => '\x0c',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\x0b',
                        'u' | 'U' => {
                            let count = if escaped == 'u' { 4 } else { 8 };
                            let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                            let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                            code.filter(|&c| c != '\0').context("not a character")?
                        }
                        '\0' => bail!("a string contains a NUL byte"),
                        other => other,
                    });
                }
                c => text.push(c),
            }
        }
        bail!("a string ends early")
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value> {
        let mut element = match wanted {
            None => None,
            Some(signature) => {
                Some(signature.strip_prefix('a').context("an array was not expected")?.to_string())
            }
        };
        self.expect('[')?;
        let mut items = Vec::new();
        if !self.take(']') {
            loop {
                let item = self.value(element.as_deref())?;
                element.get_or_insert_with(|| item.signature());
                items.push(item);
                if self.take(']') {
                    break;
                }
                self.expect(',')?;
            }
        }
        Ok(Value::Array(element.context("the type of an empty array is not known")?, items))
    }

    fn dictionary(&mut self, wanted: Option<&str>) -> Result<Value> {
        let inner = match wanted {
            None => None,
            Some(signature) => Some(
                signature
                    .strip_prefix("a{")
                    .and_then(|rest| rest.strip_suffix('}'))
                    .context("a dictionary was not expected")?,
            ),
        };
        let mut kinds = match inner {
            None => None,
            Some(inner) => {
                let key = single(inner).context("not a dictionary's type")?;
                Some((key.to_string(), inner[key.len()..].to_string()))
            }
        };
        self.expect('{')?;
        let mut items = Vec::new();
        if !self.take('}') {
            loop {
                let key = self.value(kinds.as_ref().map(|kinds| kinds.0.as_str()))?;
                self.expect(':')?;
                let value = self.value(kinds.as_ref().map(|kinds| kinds.1.as_str()))?;
                kinds.get_or_insert_with(|| (key.signature(), value.signature()));
                items.push(Value::Entry(Box::new((key, value))));
                if self.take('}') {
                    break;
                }
                self.expect(',')?;
            }
        }
        let (key, value) = kinds.context("the type of an empty dictionary is not known")?;
        Ok(Value::Array(format!("{{{key}{value}}}"), items))
    }

    fn tuple(&mut self, wanted: Option<&str>) -> Result<Value> {
        let mut kinds = match wanted {
            None => None,
            Some(signature) => Some(
                signature
                    .strip_prefix('(')
                    .and_then(|rest| rest.strip_suffix(')'))
                    .context("a tuple was not expected")?,
            ),
        };
        self.expect('(')?;
        let mut fields = Vec::new();
        while !self.take(')') {
            let kind = match &mut kinds {
                None => None,
                Some(rest) => {
                    let kind = single(rest).context("a tuple has too many fields")?;
                    *rest = &rest[kind.len()..];
                    Some(kind)
                }
            };
            fields.push(self.value(kind)?);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        if fields.is_empty() || kinds.is_some_and(|rest| !rest.is_empty()) {
            bail!("a tuple has too few fields");
        }
        Ok(Value::Struct(fields))
    }
}

/// The type of a value whose context wants another, or none in particular.
fn agree<'a>(wanted: Option<&str>, signature: &'a str) -> Result<&'a str> {
    match wanted {
        Some(wanted) if wanted != signature => bail!("type {wanted} was expected, not {signature}"),
        _ => Ok(signature),
    }
}

fn named_type(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        "signature" => "g",
        _ => return None,
    })
}

/// The first complete type of a signature (D-Bus specification, "Type System"). None: it begins with none.
fn single(signature: &str) -> Option<&str> {
    complete(signature.as_bytes(), 0, 0).map(|length| &signature[..length])
}

/// How long that type is, which stands in so many arrays and structures.
fn complete(bytes: &[u8], arrays: usize, structures: usize) -> Option<usize> {
    const BASIC: &[u8] = b"ybnqiuxtdsog";
    if arrays > MAX_NESTING || structures > MAX_NESTING {
        return None;
    }
    match bytes {
        [b'a', b'{', key, value @ ..] if BASIC.contains(key) => {
            let end = 3 + complete(value, arrays + 1, structures + 1)?;
            (bytes.get(end) == Some(&b'}')).then_some(end + 1)
        }
        [b'a', element @ ..] => Some(1 + complete(element, arrays + 1, structures)?),
        [b'(', ..] => {
            let mut end = 1;
            loop {
                end += complete(&bytes[end..], arrays, structures + 1)?;
                if bytes.get(end) == Some(&b')') {
                    return Some(end + 1);
                }
            }
        }
        [kind, ..] if BASIC.contains(kind) || *kind == b'v' => Some(1),
        _ => None,
    }
}

/// A number: decimal, `0x` hexadecimal or `0` octal; 32 bits signed unless another type is wanted or it has a fraction.
fn number(word: &str, wanted: Option<&str>) -> Result<Value> {
    let fail = || format!("{word:?} is not a number of the type {}", wanted.unwrap_or("i"));
    let unsigned = word.trim_start_matches(['-', '+']);
    let hexadecimal = unsigned.starts_with("0x") || unsigned.starts_with("0X");
    let fraction = !hexadecimal && word.contains(['.', 'e', 'E']) || matches!(unsigned, "inf" | "nan");
    if wanted == Some("d") || (wanted.is_none() && fraction) {
        return Ok(Value::Double(word.parse().ok().with_context(fail)?));
    }
    let (digits, base) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&unsigned[2..], 16),
        [b'0', _, ..] => (&unsigned[1..], 8),
        _ => (unsigned, 10),
    };
    if word.len() - unsigned.len() > 1 || !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        bail!("{}", fail());
    }
    let magnitude = i128::from(u64::from_str_radix(digits, base).ok().with_context(fail)?);
    let number = if word.starts_with('-') { -magnitude } else { magnitude };
    macro_rules! fit {
        ($variant:ident) => {
            Value::$variant(number.try_into().ok().with_context(fail)?)
        };
    }
    Ok(match wanted {
        None | Some("i") => fit!(I32),
        Some("y") => fit!(Byte),
        Some("n") => fit!(I16),
        Some("q") => fit!(U16),
        Some("u") => fit!(U32),
        Some("x") => fit!(I64),
        Some("t") => fit!(U64),
        _ => bail!("{}", fail()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let texts =
            |list: &[&str]| Value::Array("s".into(), list.iter().map(|text| Value::text(*text)).collect());
        for (text, expected) in [
            ("true", Value::Bool(true)),
            ("37", Value::I32(37)),
            ("-1", Value::I32(-1)),
            ("0x10", Value::I32(16)),
            ("uint64 90000000", Value::U64(90_000_000)),
            ("@t 5", Value::U64(5)),
            ("byte 255", Value::Byte(255)),
            ("0.5", Value::Double(0.5)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a\"b\u00e9\n""#, Value::text("a\"bé\n")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a.service', 'b.service']", texts(&["a.service", "b.service"])),
            ("@as []", texts(&[])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("b'x'", Value::bytes(b"x\0")),
            ("<1>", Value::Variant(Box::new(Value::I32(1)))),
            (
                "@a(ss) [('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".into(),
                    vec![Value::Struct(vec![Value::text("/dev/null"), Value::text("rw")])],
                ),
            ),
            (
                "{'a': 1}",
                Value::Array("{si}".into(), vec![Value::Entry(Box::new((Value::text("a"), Value::I32(1))))]),
            ),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for bad in [
            "",
            "x",
            "'a",
            "[",
            "[]",
            "{}",
            "()",
            "1 2",
            "byte 256",
            "uint32 -1",
            "2147483648",
            "@z 1",
            "@as [1]",
            "['a', 1]",
            "<1",
            "b'",
            "+-1",
            "0x",
            "@(ss) ('a',)",
            "'\\u0000'",
            "'\\\0'",
            "'\0'",
            &"[".repeat(1000),
            "@as",
            &format!("({})", "1,".repeat(254)),
            &format!("<({})>", "1,".repeat(254)),
            &format!("signature '{}'", "i".repeat(256)),
            &format!("[{}1]", "1,".repeat(1 << 19)),
            "@a{} []",
            "@a{} {}",
            "@a{s} {}",
            "@a{vs} {}",
            "@a{(s)s} {}",
            "@a{ss {}",
            "@a{sss} {}",
            "@a{sv) {}",
            "@(s} ('a',)",
            "@{sv} {}",
            "@a [1]",
            "@() ()",
            "@a() []",
            "@(a) []",
            "@ [1]",
            "@ss 'a'",
            "@s) 'a'",
            "<@a{} []>",
            "[<{<1>: 2}>]",
            "{[1]: 2}",
            "{<'a'>: 2}",
            "signature 'a'",
            "signature '{sv}'",
            "signature 'a{}'",
            "signature 'i()'",
            "objectpath ''",
            "objectpath 'a'",
            "objectpath '/a/'",
            "objectpath '//'",
            "objectpath '/a-b'",
            "@ao ['/é']",
            &format!("@{}s []", "a".repeat(33)),
            &format!("@a{}s{} []", "(".repeat(33), ")".repeat(33)),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (good, signature) in [
            ("@a{sv} {}", "a{sv}"),
            ("@a{oa{s(iv)}} {}", "a{oa{s(iv)}}"),
            ("@a{sv} {'a': <1>}", "a{sv}"),
            ("signature ''", "g"),
            ("signature 'a{sv}(i)u'", "g"),
            ("objectpath '/'", "o"),
            (&format!("@{}s []", "a".repeat(32)), &format!("{}s", "a".repeat(32))),
        ] {
            assert_eq!(parse(good).unwrap().signature(), signature, "{good}");
        }
        let longest = parse(&format!("({})", "1,".repeat(253))).unwrap();
        assert_eq!(longest.signature().len(), 255);
    }

    #[test]
    fn annotations() {
        let of = |key: &str, text: &str| properties(&HashMap::from([(key.into(), text.into())]));
        let one = |key: &str, text: &str| of(&format!("{PREFIX}{key}"), text).unwrap().remove(0);
        assert_eq!(one("TimeoutStopUSec", "uint64 5"), ("TimeoutStopUSec".into(), Value::U64(5)));
        assert_eq!(one("TimeoutStopSec", "123"), ("TimeoutStopUSec".into(), Value::U64(123_000_000)));
        assert_eq!(one("RuntimeMaxSec", "2.5"), ("RuntimeMaxUSec".into(), Value::U64(2_500_000)));
        assert_eq!(one("XYZSec", "1"), ("XYZSec".into(), Value::I32(1)));
        assert!(of("org.other", "x").unwrap().is_empty());
        for (key, text, expected) in [
            ("ab", "1", "name incorrect: too short"),
            ("A_bc", "1", "name incorrect: contains non-alphabetic character"),
            ("TimeoutStopSec", "'x'", "value parse error"),
            ("TimeoutStopSec", "-1", "value parse error"),
            ("After", "['a", "value parse error"),
        ] {
            let error = of(&format!("{PREFIX}{key}"), text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(key), "{error}");
        }
    }
}
