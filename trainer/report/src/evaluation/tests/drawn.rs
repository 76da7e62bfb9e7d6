//! What is drawn: curves of a training, and samples.

use super::*;

#[test]
fn losses_and_looks_are_drawn_over_the_steps() {
    let page = page_of(&measured("3"), None, pictures());
    assert!(page.contains("took 500 of 1,000 steps, and ended early, on 32,000 images"));
    assert!(
        page.contains("Loss of the generator. forget: 0.01 at 100 steps, 0.002 at 500; remain: 0.5 at 100")
    );
    assert!(page.contains("Leak. leak: 50.0 % at 100 steps, 10.0 % at 500"));
    assert!(
        page.find("Leak. leak").unwrap() < page.find("Distance. distance").unwrap(),
        "the leak comes first"
    );
}

#[test]
fn curves_that_are_not_there_are_said_to_be_missing() {
    let page_of = |training| trained_page(&measured("3"), None, pictures(), training);
    assert!(
        page_of(Err("nobody named the record".into()))
            .contains("curves of the training: nobody named the record")
    );
    assert!(page_of(Ok(vec![])).contains("there are no lines in them"));
    let blind = training("generator").into_iter().map(|line| Metrics { looks: BTreeMap::new(), ..line });
    assert!(page_of(Ok(blind.collect())).contains("so there is no curve of the leak"));
    let mute = training("generator").into_iter().map(|line| Metrics { losses: BTreeMap::new(), ..line });
    assert!(page_of(Ok(mute.collect())).contains("the training named none"));
}

#[test]
fn a_training_with_many_losses_is_not_drawn_without_end() {
    let mut lines = training("generator");
    lines[0].losses = (0..100).map(|index| (format!("loss {index}"), 1.0)).collect();
    let page = trained_page(&measured("3"), None, pictures(), Ok(lines));
    assert!(page.contains("93 more charts: too many to draw"));
}

#[test]
fn rows_carry_the_label_that_the_record_names() {
    let mut body = measured("3");
    let page = page_of(&body, None, pictures());
    assert_eq!(count(&page, "data:image/png;base64,"), 2, "each picture is in the page once");
    assert!(
        page.contains("aria-label=\"Samples drawn for 3, before\"")
            && page.contains("viewBox=\"0 0.00 100 40.00\"")
    );
    body.pictured.reverse();
    let page = page_of(&body, None, pictures());
    let three = page.split("<svg").find(|part| part.contains("Samples drawn for 3, after")).unwrap();
    assert!(three.contains("0 40.00 100 40.00"), "{three}");
    body.pictured = vec!["3".into()];
    assert!(page_of(&body, None, pictures()).contains("rows of 1 more labels"));
    body.pictured = vec![];
    assert!(page_of(&body, None, pictures()).contains("does not say which row is which"));
}
