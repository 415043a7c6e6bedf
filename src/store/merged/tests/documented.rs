//! Runs the examples of `docs/merged.md`.

use super::{Doc, doc, meet};
use crate::store::json::{parse, to_text};

const PAGE: &str = include_str!("../../../../docs/merged.md");

struct Example {
    a: Doc,
    b: Doc,
    /// True until the document has a content.
    fresh: bool,
}

impl Example {
    fn line(&mut self, line: &str) {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        let value = || parse(text.trim().as_bytes()).unwrap_or_else(|cause| panic!("{line}: {cause}"));
        match word {
            "a" => self.a.put(None, &value()).unwrap(),
            "b" => self.b.put(None, &value()).unwrap(),
            "meet" => meet(&mut self.a, &mut self.b),
            "both" if self.fresh => {
                self.a.put(None, &value()).unwrap();
                meet(&mut self.a, &mut self.b);
            }
            "both" => {
                assert_eq!(to_text(self.a.json()), to_text(&value()));
                assert_eq!(to_text(self.b.json()), to_text(&value()));
            }
            _ => panic!("what is {line:?}?"),
        }
        self.fresh = false;
    }
}

#[test]
fn the_examples_of_the_page_hold() {
    let examples = PAGE.split("```merge\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let mut count = 0;
    for text in examples {
        let mut example = Example { a: doc(1), b: doc(2), fresh: true };
        text.lines().for_each(|line| example.line(line));
        count += 1;
    }
    assert!(count >= 7, "only {count} examples were found");
}
