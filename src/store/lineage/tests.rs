use super::*;

fn dot(writer: u8, incarnation: u64) -> Dot {
    Dot { writer: [writer; 8], incarnation }
}

fn covered(dots: &[Dot]) -> Covered {
    Covered::default().with(dots)
}

#[test]
fn the_highest_covered_creation_of_a_writer_covers_those_before_it() {
    let set = covered(&[dot(1, 2), dot(1, 5), dot(2, 3)]);
    for (creation, is_covered) in [(dot(1, 1), true), (dot(1, 5), true), (dot(1, 6), false), (dot(3, 1), false)] {
        assert_eq!(set.covers(&creation), is_covered, "{creation:?}");
    }
    assert_eq!(set, covered(&[dot(2, 3), dot(1, 5)]));
    assert_eq!(set.highest(), 5);
}

#[test]
fn past_its_bound_a_set_covers_every_creation_up_to_an_incarnation_whatever_the_order_of_joins() {
    let sets: Vec<Covered> = (0..100).map(|n| covered(&[dot(n, u64::from(n) / 3 + 1)])).collect();
    let forwards = sets.iter().fold(Covered::default(), |all, one| all.join(one));
    let backwards = sets.iter().rev().fold(Covered::default(), |all, one| one.join(&all));
    let (low, high) = sets.split_at(37);
    let halves = [low, high].map(|half| half.iter().fold(Covered::default(), |all, one| all.join(one)));
    assert_eq!(forwards, backwards);
    assert_eq!(forwards, halves[0].join(&halves[1]));
    assert!(forwards.dots.len() <= COVERED_DOTS && forwards.floor > 0);
    assert!(sets.iter().all(|one| forwards.includes(one)), "what was covered stays covered");
    assert!(forwards.covers(&dot(200, 1)) && !forwards.covers(&dot(200, 60)));
}

#[test]
fn a_creation_covers_what_it_replaces_and_a_put_keeps_what_it_descends_from() {
    let first = Lineage::create(None, [1; 8]);
    assert_eq!((first.incarnation(), first.edited() == first), (1, true));
    let gone = first.buried();
    assert_eq!(gone.incarnation(), 1);
    let second = Lineage::create(Some(&gone), [2; 8]);
    assert_eq!(second.incarnation(), 2);
    assert!(!first.survives(&second.covered) && second.survives(&gone.covered));
}

#[test]
fn a_set_has_one_form_in_bytes_and_no_other_is_read() {
    let set = covered(&[dot(1, 300), dot(2, 1)]);
    let mut bytes = Vec::new();
    set.put(&mut bytes);
    assert_eq!(Covered::parse(&mut Bytes(&bytes)), Some(set));
    let unsorted = [&[0, 2][..], &[2; 8], &[1], &[1; 8], &[1]].concat();
    let twice = [&[0, 2][..], &[1; 8], &[1], &[1; 8], &[2]].concat();
    let below_floor = [&[5, 1][..], &[1; 8], &[5]].concat();
    let of_none = [&[0, 1][..], &[1; 8], &[0]].concat();
    let many = [0, 65];
    for bytes in [&unsorted, &twice, &below_floor, &of_none, &many[..]] {
        assert_eq!(Covered::parse(&mut Bytes(bytes)), None, "{bytes:02x?}");
    }
}
