//! The text in which LVM2 describes a volume group: values with names, in sections.

/// Deepest section: a segment of a logical volume is the fourth.
const DEEPEST: u32 = 8;

/// What a name stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'t> {
    Number(u64),
    /// In quotes. Escapes stay as they are; nothing that is used here has any.
    Text(&'t [u8]),
    List(Vec<Value<'t>>),
    Section(Section<'t>),
    /// Something that no reader of a volume needs, such as a number with a fraction.
    Other,
}

/// Values with names, of which no two are the same.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Section<'t>(Vec<(&'t [u8], Value<'t>)>);

impl<'t> Section<'t> {
    /// Parses a text. The error is why it is none.
    pub(super) fn parse(text: &'t [u8]) -> Result<Self, &'static str> {
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        let mut parser = Parser { rest: text };
        let section = parser.section(0)?;
        if parser.rest.is_empty() { Ok(section) } else { Err("a section ends that did not begin") }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t [u8], &Value<'t>)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The sections in it, by their names.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'t [u8], &Self)> {
        self.entries().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name, section)),
            _ => None,
        })
    }

    fn get(&self, name: &str) -> Option<&Value<'t>> {
        self.0.iter().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'t [u8]> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list; one value alone is one, too.
    pub(super) fn list(&self, name: &str) -> Option<&[Value<'t>]> {
        match self.get(name)? {
            Value::List(list) => Some(list),
            value @ (Value::Text(_) | Value::Number(_)) => Some(std::slice::from_ref(value)),
            _ => None,
        }
    }

    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        match self.get(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    /// Whether a list of flags has this one.
    pub(super) fn has_flag(&self, name: &str, flag: &str) -> bool {
        let flags = self.list(name).unwrap_or_default();
        flags.iter().any(|value| matches!(value, Value::Text(text) if *text == flag.as_bytes()))
    }
}

struct Parser<'t> {
    rest: &'t [u8],
}

impl<'t> Parser<'t> {
    /// Leaves out blanks and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if !self.rest.starts_with(b"#") {
                return;
            }
            self.take_while(|byte| byte != b'\n');
        }
    }

    fn take_while(&mut self, is_part: impl Fn(u8) -> bool) -> &'t [u8] {
        let length = self.rest.iter().position(|byte| !is_part(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        self.rest = rest;
        taken
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn section(&mut self, depth: u32) -> Result<Section<'t>, &'static str> {
        if depth > DEEPEST {
            return Err("sections are too deep");
        }
        let mut entries = Vec::new();
        loop {
            self.skip();
            if self.rest.is_empty() || self.rest.starts_with(b"}") {
                break;
            }
            let is_name = |byte: u8| byte.is_ascii_graphic() && !br#"={}[]",#"#.contains(&byte);
            let name = self.take_while(is_name);
            if name.is_empty() {
                return Err("a name is missing");
            }
            self.skip();
            let value = if self.take(b'{') {
                let section = self.section(depth.saturating_add(1))?;
                if !self.take(b'}') {
                    return Err("a section has no end");
                }
                Value::Section(section)
            } else if self.take(b'=') {
                self.skip();
                self.value(depth)?
            } else {
                return Err("a name has no value");
            };
            entries.push((name, value));
        }
        let mut names: Vec<&[u8]> = entries.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err("a name has two values");
        }
        Ok(Section(entries))
    }

    fn value(&mut self, depth: u32) -> Result<Value<'t>, &'static str> {
        if self.take(b'"') {
            let begin = self.rest;
            loop {
                self.take_while(|byte| byte != b'"' && byte != b'\\');
                if self.take(b'\\') {
                    self.rest = self.rest.get(1..).ok_or("a text has no end")?;
                } else if self.rest.starts_with(b"\"") {
                    break;
                } else {
                    return Err("a text has no end");
                }
            }
            let text = begin.get(..begin.len().saturating_sub(self.rest.len())).unwrap_or_default();
            self.take(b'"');
            return Ok(Value::Text(text));
        }
        if self.take(b'[') {
            let mut list = Vec::new();
            if depth > DEEPEST {
                return Err("lists are too deep");
            }
            loop {
                self.skip();
                if self.take(b']') {
                    return Ok(Value::List(list));
                }
                list.push(self.value(depth.saturating_add(1))?);
                self.skip();
                if !self.take(b',') && !self.rest.starts_with(b"]") {
                    return Err("a list has no end");
                }
            }
        }
        let word = self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+-._@".contains(&byte));
        if word.is_empty() {
            return Err("a value is missing");
        }
        let is_number = word.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(word).ok().filter(|_| is_number).and_then(|word| word.parse().ok());
        Ok(number.map_or(Value::Other, Value::Number))
    }
}

#[cfg(test)]
mod tests {
    use super::{Section, Value};

    #[test]
    fn texts_of_groups() {
        let text = br#"# Generated
vg-0 {
    id = "a\"b\\"	# a comment
    seqno=12
    status = ["READ", "WRITE"]
    flags = []
    one = "READ"
    negative = -1
    inner { half = 0.5 list = [ "pv0", 7,
        "pv1", 8 ] }
}
"#;
        let all = Section::parse(text).unwrap();
        let group = all.section("vg-0").unwrap();
        assert_eq!(group.text("id"), Some(br#"a\"b\\"#.as_slice()));
        assert_eq!((group.number("seqno"), group.number("id"), group.number("negative")), (Some(12), None, None));
        assert!(group.has_flag("status", "WRITE") && group.has_flag("one", "READ") && !group.has_flag("flags", "READ"));
        let list = group.section("inner").unwrap().list("list").unwrap();
        assert!(matches!(list, [Value::Text(b"pv0"), Value::Number(7), Value::Text(b"pv1"), Value::Number(8)]));
        assert_eq!(all.sections().map(|(name, _)| name).collect::<Vec<_>>(), [b"vg-0"]);
        assert!(Section::parse(b"a = 1\n\0").is_ok());
        for wrong in [
            "a",
            "a =",
            "a = \"x",
            "a = \"x\\",
            "a = [1",
            "a = [1 2]",
            "a {",
            "}",
            "a = 1 a = 2",
            "= 1",
            "a = }",
            "a = [[[[[[[[[[[[1]]]]]]]]]]]]",
        ] {
            assert!(Section::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Section::parse("a{".repeat(100_000).as_bytes()).is_err());
    }
}
