//! One flag or positional argument, as small as the reading of a command line needs it; clap's own form, for help, man
//! pages and completions, is made from it. clap's takes 40 us for the flags of `create`, these take none.

use clap::ArgAction;
use clap::builder::ValueParser;

/// What an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A flag without a value.
    Switch,
    /// A flag with a value; the last one counts.
    Value,
    /// A flag with a value; all count.
    List,
    /// A word in its place.
    Positional,
}

/// A definition.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub name: &'static str,
    pub kind: Kind,
    help: &'static str,
    short: Option<char>,
    alias: Option<char>,
    hidden: bool,
    pub required: bool,
    /// Takes any number of words.
    pub any_number: bool,
}

impl Arg {
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Arg {
        Arg { name, kind, help, short: None, alias: None, hidden: false, required: false, any_number: false }
    }

    /// Its one-letter name.
    pub const fn short(mut self, letter: char) -> Arg {
        self.short = Some(letter);
        self
    }

    /// Another one-letter name, which help does not show.
    pub const fn short_alias(mut self, letter: char) -> Arg {
        self.alias = Some(letter);
        self
    }

    /// Help does not show it.
    pub const fn hide(mut self, hidden: bool) -> Arg {
        self.hidden = hidden;
        self
    }

    pub const fn required(mut self) -> Arg {
        self.required = true;
        self
    }

    pub const fn any_number(mut self) -> Arg {
        self.any_number = true;
        self
    }

    /// The name of a flag.
    pub fn long(&self) -> Option<&'static str> {
        (self.kind != Kind::Positional).then_some(self.name)
    }

    pub fn is_named(&self, letter: char) -> bool {
        self.short == Some(letter) || self.alias == Some(letter)
    }

    /// clap's form.
    pub fn clap(self) -> clap::Arg {
        let mut arg = clap::Arg::new(self.name)
            .help(self.help)
            .value_parser(ValueParser::os_string())
            .hide(self.hidden)
            .required(self.required);
        if let Some(long) = self.long() {
            arg = arg.long(long);
        }
        if let Some(letter) = self.short {
            arg = arg.short(letter);
        }
        if let Some(letter) = self.alias {
            arg = arg.short_alias(letter);
        }
        match self.kind {
            Kind::Switch => arg.value_parser(clap::value_parser!(bool)).action(ArgAction::SetTrue),
            Kind::Value => arg.value_name("value").action(ArgAction::Set),
            Kind::List => arg.value_name("value").action(ArgAction::Append),
            Kind::Positional if self.any_number => arg.num_args(0..),
            Kind::Positional => arg,
        }
    }
}
