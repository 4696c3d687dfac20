//! Values that open only under their own name and key, and keys that come from where they should.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use windlass_coordinator_core::row::{Actor, ActorKind};
use windlass_protocol::WallMs;

use super::*;

fn name(key: &str, pipeline: Option<&str>) -> SecretName {
    SecretName { key: key.to_owned(), pipeline: pipeline.map(str::to_owned), branch: None, zone: None }
}

fn vault(dir: &Path) -> Vault {
    Vault::open(dir, &KeySources::default(), [].iter()).unwrap()
}

fn row(vault: &Vault, name: SecretName, value: &str) -> SecretRow {
    let sealed = vault.seal(&name, &Secret::new(value.to_owned())).unwrap();
    let actor = Actor { kind: ActorKind::User, name: "ada".to_owned() };
    let (created_by, updated_by) = (actor.clone(), actor);
    SecretRow { name, sealed, created_by, created_at: WallMs(1), updated_by, updated_at: WallMs(1) }
}

#[track_caller]
fn is_damaged(vault: &Vault, name: &SecretName, sealed: &Sealed) {
    let opened = vault.unseal(name, sealed);
    assert!(matches!(opened, Err(VaultError::Damaged(_))), "{opened:?}");
}

#[test]
fn a_value_opens_under_its_own_name_alone() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(dir.path());
    let names = [
        name("A", None),
        name("B", None),
        name("A", Some("web")),
        name("A", Some("")),
        SecretName { branch: Some("web".to_owned()), ..name("A", None) },
        SecretName { zone: Some("web".to_owned()), ..name("A", None) },
    ];
    for (at, own) in names.iter().enumerate() {
        let sealed = vault.seal(own, &Secret::new("hunter22".to_owned())).unwrap();
        assert_eq!(vault.unseal(own, &sealed).unwrap().expose(), "hunter22");
        for other in names.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other) {
            is_damaged(&vault, other, &sealed);
        }
    }
    let (one, two) =
        (vault.seal(&names[0], &Secret::new("x".to_owned())), vault.seal(&names[0], &Secret::new("x".to_owned())));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.nonce != two.nonce && one.bytes != two.bytes, "the same value twice is not seen to be the same");
}

#[test]
fn a_row_that_was_changed_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(dir.path());
    let own = name("A", None);
    let sealed = vault.seal(&own, &Secret::new("hunter22".to_owned())).unwrap();
    for at in (0..sealed.bytes.len()).step_by(2) {
        let mut bytes = hex::from(&sealed.bytes).unwrap();
        bytes[at / 2] ^= 1;
        is_damaged(&vault, &own, &Sealed { bytes: hex::to(&bytes), ..sealed.clone() });
    }
    for odd in ["", "zz", "0", "+1+1", "é1", &sealed.bytes[2..]] {
        is_damaged(&vault, &own, &Sealed { bytes: odd.to_owned(), ..sealed.clone() });
        is_damaged(&vault, &own, &Sealed { nonce: odd.to_owned(), ..sealed.clone() });
    }
    let another = vault.seal(&own, &Secret::new("hunter22".to_owned())).unwrap();
    is_damaged(&vault, &own, &Sealed { nonce: another.nonce, ..sealed });
}

#[test]
fn another_key_opens_nothing_and_says_so() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (vault(one.path()), vault(two.path()));
    let rows = [row(&first, name("A", None), "hunter22"), row(&first, name("B", None), "hunter33")];
    let opened = second.unseal(&rows[0].name, &rows[0].sealed);
    assert!(matches!(opened, Err(VaultError::OtherKey { .. })), "{opened:?}");
    // Its id alone does not make it the right one.
    let forged = Sealed { key_id: second.keys[0].id.clone(), ..rows[0].sealed.clone() };
    is_damaged(&second, &rows[0].name, &forged);
    let refused = Vault::open(two.path(), &KeySources::default(), rows.iter()).unwrap_err();
    assert!(matches!(&refused, VaultError::OtherKey { count: 2, .. }), "{refused}");
    assert!(refused.hint().unwrap().contains("--secrets-old-key-file"));
}

#[test]
fn the_first_start_makes_a_key_and_later_ones_find_it() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [row(&vault(dir.path()), name("A", None), "hunter22")];
    let path = dir.path().join(FILE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Vault::open(dir.path(), &KeySources::default(), rows.iter()).unwrap();
    assert_eq!(again.unseal(&rows[0].name, &rows[0].sealed).unwrap().expose(), "hunter22");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = Vault::open(dir.path(), &KeySources::default(), rows.iter());
    assert!(matches!(open, Err(VaultError::File { .. })), "others may read it");
    std::fs::remove_file(&path).unwrap();
    let lost = Vault::open(dir.path(), &KeySources::default(), rows.iter());
    assert!(matches!(lost, Err(VaultError::OtherKey { count: 1, .. })), "{lost:?}");
    assert!(!path.exists(), "a key that opens nothing is not made");
}

#[test]
fn keys_come_from_files_and_from_the_environment_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let hex = "0123456789abcdef".repeat(4);
    let path = dir.path().join("key");
    write_private(&path, format!("{hex}\n").as_bytes()).unwrap();
    let of_file = KeySources { file: Some(path.clone()), ..KeySources::default() };
    let of_env = KeySources { given: Some(Secret::new(hex.clone())), ..KeySources::default() };
    let (one, two) = (Vault::open(dir.path(), &of_file, [].iter()), Vault::open(dir.path(), &of_env, [].iter()));
    let (one, two) = (one.unwrap(), two.unwrap());
    let sealed = one.seal(&name("A", None), &Secret::new("hunter22".to_owned())).unwrap();
    assert_eq!(two.unseal(&name("A", None), &sealed).unwrap().expose(), "hunter22");
    assert!(!dir.path().join(FILE).exists());
    assert!(!format!("{one:?}{of_env:?}").contains(&hex[..16]));
    for bad in ["", "abc", &hex[..62], &format!("{hex}00"), &hex.replace('f', "g")] {
        let sources = KeySources { given: Some(Secret::new(bad.to_owned())), ..KeySources::default() };
        let refused = Vault::open(dir.path(), &sources, [].iter()).unwrap_err();
        assert!(matches!(refused, VaultError::NoKey { .. }), "{bad}");
        assert!(bad.is_empty() || !refused.to_string().contains(bad));
    }
    let absent = KeySources { file: Some(dir.path().join("absent")), ..KeySources::default() };
    assert!(matches!(Vault::open(dir.path(), &absent, [].iter()), Err(VaultError::File { .. })));
}

#[test]
fn a_new_key_seals_anew_what_the_old_one_sealed() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut rows =
        [row(&vault(old.path()), name("A", None), "hunter22"), row(&vault(old.path()), name("B", None), "b")];
    let sources = KeySources { old_files: vec![old.path().join(FILE)], ..KeySources::default() };
    drop(vault(new.path()));
    let both = Vault::open(new.path(), &sources, rows.iter()).unwrap();
    let values = both.reseal(rows.iter()).unwrap();
    assert_eq!(values.len(), 2);
    for (row, (name, before, after)) in rows.iter_mut().zip(values) {
        assert_eq!((&row.name, &row.sealed), (&name, &before));
        row.sealed = after;
    }
    let alone = Vault::open(new.path(), &KeySources::default(), rows.iter()).unwrap();
    assert_eq!(alone.unseal(&rows[0].name, &rows[0].sealed).unwrap().expose(), "hunter22");
    assert_eq!(alone.reseal(rows.iter()).unwrap(), []);
}

proptest! {
    #[test]
    fn any_value_comes_back_and_is_not_in_what_is_kept(value in "\\PC{6,200}", key in "[A-Z]{1,10}") {
        let key_of_all = KeySources { given: Some(Secret::new("ab".repeat(32))), ..KeySources::default() };
        let vault = Vault::open(Path::new("/nonexistent"), &key_of_all, [].iter()).unwrap();
        let own = name(&key, Some("web"));
        let sealed = vault.seal(&own, &Secret::new(value.clone())).unwrap();
        let unsealed = vault.unseal(&own, &sealed).unwrap();
        prop_assert_eq!(unsealed.expose(), &value);
        let kept = serde_json::to_string(&sealed).unwrap();
        prop_assert!(!kept.contains(&value) && !kept.contains(&hex::to(value.as_bytes())));
    }
}
