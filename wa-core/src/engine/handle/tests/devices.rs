use super::world::{World, conflict, missing, refused};
use crate::domain::access::RequestScope;
use crate::domain::command::{DeviceAnswer, DeviceAsk};
use crate::domain::device::{Credential, DeviceStatus, HoldReason, LinkState};
use crate::domain::platform::Platform;
use crate::engine::handle::{DeviceRequest, PlatformDraft};
use crate::event::EventKind;
use crate::plan::{DeviceDraft, Edit, FieldCode};
use crate::transport::{Capabilities, StubTransport};

#[tokio::test]
async fn a_device_gets_a_callback_token_of_its_own_that_nobody_can_guess() {
    let world = World::new().await;
    let (first, second) = (world.device("a").await, world.device("b").await);
    assert_eq!(first.hook_token.len(), 64);
    assert!(first.hook_token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(first.hook_token, second.hook_token);
    let found = world.handle.store().device_by_hook(&first.hook_token).await.unwrap();
    assert_eq!(found.id, first.id);
}

#[tokio::test]
async fn a_platform_without_a_transport_is_refused_with_those_there_are() {
    let world = World::new().await;
    let draft = DeviceDraft {
        platform: Some("wablas".to_owned()),
        ..DeviceDraft::default()
    };
    let fields = refused(world.handle.create_device(&world.user, &draft).await);
    assert_eq!(
        fields,
        [
            ("name".to_owned(), FieldCode::Required),
            ("platform".to_owned(), FieldCode::Unknown)
        ]
    );
    let web = DeviceDraft {
        name: Some("Phone".to_owned()),
        ..DeviceDraft::default()
    };
    let device = world.handle.create_device(&world.user, &web).await.unwrap();
    assert_eq!(device.status(), DeviceStatus::Offline);
}

#[tokio::test]
async fn a_name_is_taken_once_per_user_and_free_for_others() {
    let world = World::new().await;
    let device = world.device("Sales").await;
    let other = world.device("Support").await;
    let same = DeviceDraft {
        name: Some(" SALES ".to_owned()),
        platform: Some("stub".to_owned()),
        ..DeviceDraft::default()
    };
    assert!(conflict(world.handle.create_device(&world.user, &same).await).contains("SALES"));
    assert!(world.handle.create_device(&world.other, &same).await.is_ok());
    let edit = Edit::new(other.version, same);
    assert!(conflict(world.handle.edit_device(&world.user, other.id, &edit).await).contains("another device"));
    let rename = Edit::new(
        device.version,
        DeviceDraft {
            name: Some("New".to_owned()),
            ..DeviceDraft::from(&device)
        },
    );
    let renamed = world.handle.edit_device(&world.user, device.id, &rename).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.version), ("New", device.version + 1));
    assert!(conflict(world.handle.edit_device(&world.user, device.id, &rename).await).contains("version"));
}

#[tokio::test]
async fn a_device_of_another_user_is_not_found() {
    let world = World::new().await;
    let device = world.device("a").await;
    let (handle, stranger) = (&world.handle, &world.other);
    let edit = Edit::new(device.version, DeviceDraft::from(&device));
    assert_eq!(missing(handle.edit_device(stranger, device.id, &edit).await), "device");
    assert_eq!(missing(handle.delete_device(stranger, device.id).await), "device");
    assert_eq!(missing(handle.hold_device(stranger, device.id).await), "device");
    assert_eq!(missing(handle.device_numbers(stranger, device.id).await), "device");
    assert_eq!(
        missing(handle.ask_device(stranger, device.id, &DeviceRequest::Probe).await),
        "device"
    );
    let limited = RequestScope {
        devices: Some(vec![device.id]),
        ..world.user.clone()
    };
    assert_eq!(
        missing(handle.create_device(&limited, &DeviceDraft::default()).await),
        "device"
    );
}

#[tokio::test]
async fn a_platform_is_set_and_taken_back_with_the_state_that_belongs_to_it() {
    let world = World::new().await;
    let web = DeviceDraft {
        name: Some("Phone".to_owned()),
        ..DeviceDraft::default()
    };
    let device = world.handle.create_device(&world.user, &web).await.unwrap();
    let stub = PlatformDraft {
        platform: Some("stub".to_owned()),
        credential: Some(Credential::new("tok")),
        base_url: None,
    };
    let edit = Edit::new(device.version, stub);
    let device = world.handle.set_platform(&world.user, device.id, &edit).await.unwrap();
    assert_eq!(
        (&device.platform, device.link_state),
        (&Platform::STUB, LinkState::Ready)
    );
    assert!(device.credential.is_set());
    let device = world
        .handle
        .take_back_platform(&world.user, device.id, device.version)
        .await
        .unwrap();
    assert_eq!(
        (device.status(), device.link_state),
        (DeviceStatus::Offline, LinkState::Initializing)
    );
    assert!(!device.credential.is_set());
}

#[tokio::test]
async fn a_hold_and_its_end_are_told_once_each() {
    let world = World::new().await;
    let device = world.device("a").await;
    world.heard.take();
    let held = world.handle.hold_device(&world.user, device.id).await.unwrap();
    assert_eq!(held.hold.map(|hold| hold.reason), Some(HoldReason::ByPerson));
    world.handle.hold_device(&world.user, device.id).await.unwrap();
    let resumed = world.handle.resume_device(&world.user, device.id).await.unwrap();
    assert!(resumed.hold.is_none());
    let kinds: Vec<_> = world.heard.take().into_iter().map(|event| event.kind).collect();
    assert!(
        matches!(
            kinds[..],
            [
                EventKind::DeviceHold { reason: Some(_), .. },
                EventKind::DeviceHold { reason: None, .. }
            ]
        ),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_device_is_asked_only_what_its_platform_does() {
    let world = World::new().await;
    let device = world.device("a").await;
    for request in [
        DeviceRequest::Refresh,
        DeviceRequest::Disconnect,
        DeviceRequest::Logout,
        DeviceRequest::Link { phone: None },
    ] {
        let why = conflict(world.handle.ask_device(&world.user, device.id, &request).await);
        assert!(why.contains("run by stub"), "{why}");
    }
    let check = DeviceRequest::CheckNumbers {
        phones: vec!["0123456789".to_owned()],
    };
    let why = conflict(world.handle.ask_device(&world.user, device.id, &check).await);
    assert!(why.contains("cannot be asked to check numbers"), "{why}");
}

mod asked {
    use async_trait::async_trait;

    use super::*;
    use crate::domain::phone::Phone;
    use crate::engine::EngineBuilder;
    use crate::engine::config::EngineConfig;
    use crate::engine::handle::Handle;
    use crate::store::MemoryStore;
    use crate::time::SystemClock;
    use crate::transport::{
        InvalidDevice, NumberCheck, NumberChecker, OutgoingMessage, SendContext, SendError, SendReceipt, Transport,
        TransportDevice,
    };

    /// Checks numbers and refuses devices without a credential.
    #[derive(Debug)]
    struct Checking(StubTransport);

    #[async_trait]
    impl Transport for Checking {
        fn platform(&self) -> Platform {
            Platform::STUB
        }
        fn capabilities(&self) -> &Capabilities {
            self.0.capabilities()
        }
        fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
            match device.credential {
                Some(_) => Ok(()),
                None => Err(InvalidDevice::new("credential", "is required")),
            }
        }
        async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
            self.0.send(context, message).await
        }
        fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
            Some(self)
        }
    }

    #[async_trait]
    impl NumberChecker for Checking {
        async fn check(&self, _context: &SendContext, _phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn what_a_transport_cannot_work_with_and_numbers_that_are_none_are_refused() {
        let clock = std::sync::Arc::new(SystemClock::new());
        let core = EngineBuilder::new(std::sync::Arc::new(MemoryStore::new()), clock, EngineConfig::new("n"))
            .transport(std::sync::Arc::new(Checking(StubTransport::new())))
            .open()
            .await
            .unwrap();
        let handle = Handle::new(core);
        let user = World::new().await.user;
        let mut draft = DeviceDraft {
            name: Some("a".to_owned()),
            platform: Some("stub".to_owned()),
            ..DeviceDraft::default()
        };
        let fields = refused(handle.create_device(&user, &draft).await);
        assert_eq!(fields, [("credential".to_owned(), FieldCode::Invalid)]);
        draft.credential = Some(Credential::new("tok"));
        let device = handle.create_device(&user, &draft).await.unwrap();
        let check = |phones: &[&str]| DeviceRequest::CheckNumbers {
            phones: phones.iter().map(|phone| (*phone).to_owned()).collect(),
        };
        let bad = handle.ask_device(&user, device.id, &check(&["0123456789", "x"])).await;
        assert_eq!(refused(bad), [("phones[1]".to_owned(), FieldCode::Invalid)]);
        let none = handle.ask_device(&user, device.id, &check(&[])).await;
        assert_eq!(refused(none), [("phones".to_owned(), FieldCode::Required)]);
        let many = handle.ask_device(&user, device.id, &check(&["0123456789"; 101])).await;
        assert_eq!(refused(many), [("phones".to_owned(), FieldCode::TooMany)]);
        let command = handle
            .ask_device(&user, device.id, &check(&["0123456789"]))
            .await
            .unwrap();
        assert!(matches!(&command.ask, DeviceAsk::CheckNumbers { phones } if phones.len() == 1));
        let answer = handle.device_answer(&user, command.id).await.unwrap().answer;
        assert_eq!(answer, DeviceAnswer::Waiting);
    }
}

#[tokio::test]
async fn a_deleted_device_is_gone_and_its_name_is_free() {
    let world = World::new().await;
    let device = world.device("Sales").await;
    world.handle.delete_device(&world.user, device.id).await.unwrap();
    assert_eq!(
        missing(world.handle.delete_device(&world.user, device.id).await),
        "device"
    );
    world.device("Sales").await;
}
