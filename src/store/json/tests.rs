use super::{JsonError, Problem, merge_patch, parse, same, to_text};
use crate::limits::{DOCUMENT_JSON_BYTES, JSON_NESTING_LEVELS};

fn kept(text: &str) -> String {
    to_text(&parse(text.as_bytes()).unwrap())
}

fn refused(text: &str) -> JsonError {
    parse(text.as_bytes()).unwrap_err()
}

#[test]
fn integers_are_kept_exactly_and_other_numbers_as_the_nearest_float() {
    for number in ["0", "1", "-1", "9223372036854775807", "-9223372036854775808", "18446744073709551615"] {
        let text = format!("{{\"n\":{number}}}");
        assert_eq!(kept(&text), text);
    }
    assert_eq!(kept(r#"{"n":1.0}"#), r#"{"n":1.0}"#);
    assert_eq!(kept(r#"{"n":-0}"#), r#"{"n":-0.0}"#);
    assert_eq!(kept(r#"{"n":1E2}"#), r#"{"n":100.0}"#);
    assert_eq!(kept(r#"{"n":18446744073709551616.0}"#), r#"{"n":1.8446744073709552e+19}"#);
    assert_eq!(kept(r#"{"n":3.14159265358979323846}"#), r#"{"n":3.141592653589793}"#);
    assert_eq!(kept(r#"{"n":0.1e1}"#), r#"{"n":1.0}"#);
    assert_eq!(kept(r#"{"n":0e-400}"#), r#"{"n":0.0}"#);
    assert_eq!(kept(r#"{"n":-0.000E+999}"#), r#"{"n":-0.0}"#);
}

#[test]
fn the_text_of_every_float_is_read_as_that_float() {
    let mut bits = 0x9e37_79b9_7f4a_7c15u64;
    let edges = [5e-324, f64::MIN_POSITIVE, f64::MAX, 1e21, 1e20, 2f64.powi(64), 2f64.powi(63), 0.1 + 0.2, 1e-7, -0.0];
    let random = std::iter::repeat_with(|| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from_bits(bits)
    });
    for number in edges.into_iter().chain(random.filter(|number| number.is_finite()).take(10_000)) {
        let text = serde_json::json!({"n": number}).to_string();
        assert_eq!(kept(&text), text);
    }
}

#[test]
fn a_number_that_cannot_be_kept_is_refused_by_name() {
    let error = refused(r#"{"a":[1,18446744073709551616]}"#);
    assert_eq!(error.problem, Problem::OutsideIntegers("18446744073709551616".into()));
    assert_eq!((error.path.as_str(), error.offset), ("/a/1", 8));
    assert!(error.to_string().contains("18446744073709551616"), "{error}");
    for number in ["18446744073709551617".to_owned(), "-9223372036854775809".to_owned(), "9".repeat(400)] {
        assert_eq!(refused(&format!("{{\"a\":{number}}}")).problem, Problem::OutsideIntegers(number));
    }
    for number in ["1e400", "-1e400", "1e-400", "-0.1E-400", "2e-324"] {
        assert_eq!(refused(&format!("{{\"a\":{number}}}")).problem, Problem::OutsideF64(number.into()));
    }
}

#[test]
fn a_repeated_key_is_refused_by_name() {
    let error = refused(r#"{"a":{"b":1,"\u0062":2}}"#);
    assert_eq!(error.problem, Problem::RepeatedKey("b".into()));
    assert_eq!(error.path, "/a");
}

#[test]
fn only_an_object_is_a_document() {
    for text in ["[]", "1", "null", "\"a\""] {
        assert_eq!(refused(text).problem, Problem::NotAnObject, "{text}");
    }
}

#[test]
fn nesting_ends_at_the_limit() {
    let nested = |levels: usize| format!("{}{}", "{\"a\":".repeat(levels - 1) + "{", "}".repeat(levels));
    assert_eq!(kept(&nested(JSON_NESTING_LEVELS)), nested(JSON_NESTING_LEVELS));
    assert_eq!(refused(&nested(JSON_NESTING_LEVELS + 1)).problem, Problem::TooDeep);
    assert_eq!(refused(&format!("{{\"a\":{}", "[".repeat(1 << 20))).problem, Problem::TooDeep);
}

#[test]
fn white_space_does_not_count_towards_the_size() {
    let body = "x".repeat(DOCUMENT_JSON_BYTES - 8);
    assert!(parse(format!("{{ \"a\" :\n \"{body}\" }}  ").as_bytes()).is_ok());
    let error = refused(&format!("{{\"a\":\"{body}x\"}}"));
    assert_eq!(error.problem, Problem::TooLarge { bytes: DOCUMENT_JSON_BYTES + 1 });
    assert!(error.to_string().contains(&DOCUMENT_JSON_BYTES.to_string()));
}

#[test]
fn strings_are_kept_exactly() {
    assert_eq!(kept(r#"{"":"\u0000\ud83d\ude00\/é\n","\"":"\\"}"#), "{\"\":\"\\u0000😀/é\\n\",\"\\\"\":\"\\\\\"}");
}

#[test]
fn keys_come_back_sorted() {
    assert_eq!(kept(r#"{"b":{"d":1,"c":2},"a":3}"#), r#"{"a":3,"b":{"c":2,"d":1}}"#);
}

#[test]
fn what_is_not_json_is_refused() {
    let bad = [
        "",
        "{",
        "{}{}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":tru}",
        "{\"a\":NaN}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\ud800\\u0041\"}",
        "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\\u+123\"}",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{\"a\":\"\\u12",
        "\u{feff}{}",
        "// c\n{}",
        "{\"a\":\"\\u00é\"}",
    ];
    for text in bad {
        assert!(matches!(refused(text).problem, Problem::Syntax(_)), "{text:?}");
    }
    assert_eq!(parse(b"{\"a\":\"\xff\"}").unwrap_err().problem, Problem::NotUtf8);
}

#[test]
fn a_patch_follows_the_examples_of_rfc_7396() {
    let cases = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ];
    for (target, patch, result) in cases {
        let mut target = parse(target.as_bytes()).unwrap();
        merge_patch(&mut target, &parse(patch.as_bytes()).unwrap());
        assert_eq!(to_text(&target), result, "{patch}");
    }
}

#[test]
fn an_integer_and_its_float_are_not_the_same() {
    let value = |text: &str| parse(format!("{{\"a\":{text}}}").as_bytes()).unwrap()["a"].clone();
    assert!(same(&value("[1,{\"b\":0.0}]"), &value("[1,{\"b\":0.0}]")));
    assert!(!same(&value("1"), &value("1.0")));
    assert!(!same(&value("[{\"b\":0.0}]"), &value("[{\"b\":-0.0}]")));
}
