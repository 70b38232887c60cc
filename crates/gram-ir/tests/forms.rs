//! Invariants of the text and JSON forms.
//!
//! - I1 well-formed: what was read passes `verify`, or, for architectures, fails in nothing but A6 (it lowers)
//! - I8 `parse(print(g)) == g`, in both forms
//! - I9 damaged text is read or refused with a short message, never more; what is read prints and reads back as itself

use gram_ir::strategies::{arb_architecture, arb_cell, arb_network};
use gram_ir::{Architecture, Cell, Design, Network, Verify, preset};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A change of a text: at a character, remove some, repeat some, or put something in.
#[derive(Clone, Debug)]
enum Damage {
    Remove(Index, usize),
    Repeat(Index, usize),
    Insert(Index, String),
}

fn arb_damage() -> impl Strategy<Value = Vec<Damage>> {
    let pieces = [
        "0",
        "1",
        "-1",
        "99999999999999999999",
        "65536",
        "4294967296",
        "1e999",
        "n",
        "n0",
        "n1",
        "n255",
        "x",
        "=",
        "/",
        "#",
        "\n",
        " ",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "stride=",
        "pad=",
        "groups=",
        "name=",
        "output",
        "input",
        "stage channels=",
        "conv3x3/",
        "dwconv3x3",
        "concat",
        "\u{0}",
        "é",
        "\u{1b}[0m",
        "\\u0000",
    ];
    let piece = prop_oneof![select(pieces.to_vec()).prop_map(String::from), "\\PC{0,8}"];
    let damage = prop_oneof![
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        (any::<Index>(), 1..200usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (any::<Index>(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece)),
    ];
    proptest::collection::vec(damage, 1..6)
}

fn damaged(text: &str, changes: &[Damage]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for change in changes {
        let (Damage::Remove(at, _) | Damage::Repeat(at, _) | Damage::Insert(at, _)) = change;
        let at = at.index(text.len() + 1);
        match change {
            Damage::Remove(_, length) => drop(text.drain(at..(at + length).min(text.len()))),
            Damage::Repeat(_, length) => {
                let again = text[at..(at + length).min(text.len())].to_vec();
                drop(text.splice(at..at, again));
            }
            Damage::Insert(_, piece) => drop(text.splice(at..at, piece.chars())),
        }
    }
    text.into_iter().collect()
}

fn arb_design() -> impl Strategy<Value = Design> {
    let network = arb_network(14).prop_map(|network| Design::Network { name: "net-1.0_x".into(), network });
    prop_oneof![arb_architecture().prop_map(Design::Architecture), network]
}

/// I1 and I9 for a text that may be anything.
fn read_or_refused(text: &str) -> Result<(), TestCaseError> {
    match Design::parse(text) {
        Ok(design) => {
            match &design {
                Design::Network { network, .. } => prop_assert_eq!(network.verify(), Ok(())),
                Design::Architecture(architecture) => {
                    let broken = architecture.verify().err().unwrap_or_default().0;
                    prop_assert!(broken.iter().all(|line| line.starts_with("A6")), "{:?}", broken);
                }
            }
            prop_assert_eq!(&Design::parse(&design.to_string()).unwrap(), &design);
            prop_assert_eq!(&Design::parse(&design.to_json()).unwrap(), &design);
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(!message.chars().any(char::is_control) && message.len() < 4000, "{:?}", message);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn cells_read_back(cell in arb_cell(1..=30)) {
        prop_assert_eq!(cell.verify(), Ok(()));
        prop_assert_eq!(cell.to_string().parse::<Cell>(), Ok(cell));
    }

    #[test]
    fn architectures_read_back(architecture in arb_architecture()) {
        prop_assert_eq!(&architecture.to_string().parse::<Architecture>().unwrap(), &architecture);
        prop_assert_eq!(&Architecture::from_json(&architecture.to_json()).unwrap(), &architecture);
    }

    #[test]
    fn networks_read_back(network in arb_network(20)) {
        prop_assert_eq!(&network.to_string().parse::<Network>().unwrap(), &network);
        prop_assert_eq!(&format!("{network:#}").parse::<Network>().unwrap(), &network);
        let (name, read) = Network::from_json(&network.to_json("a-name")).unwrap();
        prop_assert_eq!((name.as_str(), &read), ("a-name", &network));
    }

    #[test]
    fn designs_read_back(design in arb_design()) {
        read_or_refused(&design.to_string())?;
        prop_assert_eq!(&Design::parse(&design.to_string()).unwrap(), &design);
        prop_assert_eq!(&Design::parse(&design.to_json()).unwrap(), &design);
        prop_assert_eq!(&design.with_io(design.input_shape(), design.num_classes()).unwrap(), &design);
    }

    #[test]
    fn damaged_text_is_read_or_refused(design in arb_design(), changes in arb_damage()) {
        read_or_refused(&damaged(&design.to_string(), &changes))?;
        read_or_refused(&damaged(&design.to_json(), &changes))?;
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        read_or_refused(&text)?;
        read_or_refused(&format!("architecture a\n{text}"))?;
        read_or_refused(&format!("n0 = input 1x8x8\nn1 = {text}\noutput n1"))?;
    }
}

#[test]
fn damaged_presets_are_read_or_refused() {
    let text = preset("swiftnet-vww", None, None).unwrap().to_string();
    for at in 0..text.len() {
        read_or_refused(&format!("{}{}", &text[..at], &text[at + 1..])).unwrap();
        read_or_refused(&text[..at]).unwrap();
    }
}

#[test]
fn control_characters_are_not_repeated() {
    let name = "\u{1b}[31m";
    read_or_refused(&format!("n0 = input 1x8x8\nn1 = global-avgpool n0 name={name}\noutput n1")).unwrap();
    read_or_refused(&format!("network {name}\nn0 = input 1x8x8\noutput n0")).unwrap();
    read_or_refused(&format!("architecture {name}\ninput 1x8x8\nclasses 2\nactivation relu")).unwrap();
    let design = preset("mobilenet-v2-0.35", None, None).unwrap().to_json();
    for place in ["mobilenet-v2-0.35", "stem.conv", "head.classifier", "batch-norm", "c_in", "network"] {
        let text = design.replacen(place, "\\u001b[31m", 1);
        assert_ne!(text, design);
        read_or_refused(&text).unwrap();
    }
}

#[test]
fn hostile_lengths_are_refused_at_once() {
    let long_line = format!("n1 = concat{}", " n0".repeat(1 << 20));
    read_or_refused(&format!("n0 = input 1x8x8\n{long_line}\noutput n1")).unwrap();
    read_or_refused(&format!("architecture a\nstage channels=1\n{}", "n9 = sep3x3 n0\n".repeat(1 << 18))).unwrap();
    read_or_refused(&"[".repeat(1 << 20)).unwrap();
    read_or_refused(&format!("{{\"format_version\":1,\"kind\":\"network\",\"{}\":0}}", "\\u001b".repeat(1 << 16)))
        .unwrap();
    read_or_refused(&format!("{{\"a\":{}", "[".repeat(1 << 20))).unwrap();
    let message = Design::parse(&" ".repeat((16 << 20) + 1)).unwrap_err().to_string();
    assert_eq!(message, "the text has 16777217 bytes, more than the 16777216 that are read");
}
